# One target a layer, one test program a layer. A layer's target links what stands left of it, and
# its tests link nothing more, so a call that runs the wrong way fails to link.

set(TFMBS_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion
                   -Wnon-virtual-dtor -Wold-style-cast)

function(tfmbs_compile_settings target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON
                        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
  # -ffp-contract=off: the float epilogue is a formula with each operation rounded once.
  target_compile_options(${target} PRIVATE ${TFMBS_WARNINGS} -ffp-contract=off
                                           $<$<BOOL:${TFMBS_WERROR}>:-Werror>)
  if(TFMBS_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${TFMBS_SANITIZE}
                                             -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PUBLIC -fsanitize=${TFMBS_SANITIZE})
  elseif(CMAKE_SYSTEM_NAME STREQUAL Linux)
    # A shared library that calls what nobody defines must not wait for its user to find out.
    get_target_property(type ${target} TYPE)
    if(type STREQUAL SHARED_LIBRARY)
      target_link_options(${target} PRIVATE LINKER:--no-undefined)
    endif()
  endif()
endfunction()

# tfmbs_layer(<layer> SOURCES ... [LINKS ...])
function(tfmbs_layer layer)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(tfmbs_${layer} STATIC ${ARG_SOURCES})
  tfmbs_compile_settings(tfmbs_${layer})
  target_include_directories(tfmbs_${layer}
    PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/include>
    PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/src)
  target_link_libraries(tfmbs_${layer} PUBLIC ${ARG_LINKS})
endfunction()

# tfmbs_layer_test(<layer> <sources...>): one GoogleTest program and one ctest entry a layer. In its
# brief output GoogleTest prints failures, skips with their reasons, and the totals. A test of the
# layer that is not among the sources would never run, so that is an error.
function(tfmbs_layer_test layer)
  if(NOT TFMBS_BUILD_TESTS)
    return()
  endif()
  file(GLOB present CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} tests/test_*.cpp)
  list(REMOVE_ITEM present ${ARGN})
  if(present AND UNIX)  # elsewhere those of forks are left out
    message(FATAL_ERROR "not among the sources of test_${layer}: ${present}")
  endif()
  add_executable(test_${layer} ${ARGN})
  tfmbs_compile_settings(test_${layer})
  target_include_directories(test_${layer} PRIVATE ${PROJECT_SOURCE_DIR}/cpp/test_support)
  target_link_libraries(test_${layer} PRIVATE tfmbs_${layer} GTest::gtest GTest::gtest_main)
  add_test(NAME ${layer} COMMAND test_${layer} --gtest_brief=1)
  set_tests_properties(${layer} PROPERTIES TIMEOUT 600)
endfunction()
