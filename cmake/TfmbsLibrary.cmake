# libtfmbs, the layers as one shared library, and the CMake package that finds it. No torch, no
# Python: `cmake --install` leaves a C++ library that find_package(tfmbs) finds.
include(CMakePackageConfigHelpers)

configure_file(${CMAKE_CURRENT_LIST_DIR}/version.hpp.in
               ${PROJECT_BINARY_DIR}/include/tfmbs/version.hpp @ONLY)

# The layers' objects: the library's users call what nothing inside it calls.
set(TFMBS_LAYER_OBJECTS)
foreach(layer IN LISTS TFMBS_LAYERS)
  list(APPEND TFMBS_LAYER_OBJECTS $<TARGET_OBJECTS:tfmbs_${layer}>)
endforeach()
find_package(Threads REQUIRED)
add_library(tfmbs SHARED ${CMAKE_CURRENT_LIST_DIR}/version.cpp ${TFMBS_LAYER_OBJECTS})
target_link_libraries(tfmbs PRIVATE Threads::Threads)
add_library(tfmbs::tfmbs ALIAS tfmbs)
tfmbs_compile_settings(tfmbs)
# Before 1.0 a minor version may break what the one before it promised.
set(TFMBS_SOVERSION ${PROJECT_VERSION_MAJOR})
if(PROJECT_VERSION_MAJOR EQUAL 0)
  string(APPEND TFMBS_SOVERSION .${PROJECT_VERSION_MINOR})
endif()
set_target_properties(tfmbs PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${TFMBS_SOVERSION})
if(CMAKE_SYSTEM_NAME STREQUAL Linux)
  target_link_options(tfmbs PRIVATE LINKER:--version-script=${CMAKE_CURRENT_LIST_DIR}/tfmbs.map)
  set_property(TARGET tfmbs PROPERTY LINK_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/tfmbs.map)
endif()
target_include_directories(tfmbs PUBLIC $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
                                        $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
foreach(layer IN LISTS TFMBS_LAYERS)
  target_include_directories(
    tfmbs PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/cpp/${layer}/include>)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/cpp/${layer}/include/
          DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT cpp
          FILES_MATCHING PATTERN "*.hpp" PATTERN "*.h")
endforeach()

set(TFMBS_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/tfmbs)
install(FILES ${PROJECT_BINARY_DIR}/include/tfmbs/version.hpp
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tfmbs COMPONENT cpp)
install(TARGETS tfmbs EXPORT tfmbsTargets
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT cpp
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT cpp)
install(EXPORT tfmbsTargets NAMESPACE tfmbs:: DESTINATION ${TFMBS_CMAKE_DIR} COMPONENT cpp)
configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/tfmbsConfig.cmake.in ${PROJECT_BINARY_DIR}/tfmbsConfig.cmake
  INSTALL_DESTINATION ${TFMBS_CMAKE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tfmbsConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tfmbsConfig.cmake ${PROJECT_BINARY_DIR}/tfmbsConfigVersion.cmake
        DESTINATION ${TFMBS_CMAKE_DIR} COMPONENT cpp)
