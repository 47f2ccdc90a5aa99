# What the torch ops and the binding share: the interpreter, its torch, its nanobind, and the folder
# of the Python package in which the three libraries lie side by side.
# SKBUILD_SABI_COMPONENT: Development.SABIModule for a wheel of the stable ABI (3.12 and later).
find_package(Python 3.10 REQUIRED
             COMPONENTS Interpreter Development.Module ${SKBUILD_SABI_COMPONENT})

function(tfmbs_ask_python variable what)
  execute_process(COMMAND ${Python_EXECUTABLE} ${ARGN} OUTPUT_VARIABLE answer ERROR_VARIABLE error
                  RESULT_VARIABLE status OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${what} was not found by ${Python_EXECUTABLE}: install it there, or point "
                        "Python_EXECUTABLE at the interpreter that has it.\n${error}")
  endif()
  set(${variable} "${answer}" PARENT_SCOPE)
endfunction()

# Torch is located without importing it: an import takes seconds and says things on stderr. Its headers
# and libtorch_cpu are no interpreter's, so a wheel for one Python can be built with another's torch.
set(TFMBS_TORCH_DIR "" CACHE PATH "The folder of torch, if not the interpreter's own")
set(torch_dir "${TFMBS_TORCH_DIR}")
if(NOT torch_dir)
  tfmbs_ask_python(torch_dir "torch" -c
    "import importlib.util as u\nprint(u.find_spec('torch').submodule_search_locations[0])")
endif()
file(STRINGS ${torch_dir}/version.py torch_version REGEX "^__version__ = ")
string(REGEX REPLACE "^__version__ = ['\"]([^'\"]+)['\"].*" "\\1" torch_version "${torch_version}")
if(torch_version VERSION_LESS 2.10)
  message(FATAL_ERROR "torch ${torch_version} was found; the torch ops need 2.10 or later")
endif()
message(STATUS "torch ${torch_version}: ${torch_dir}")
add_library(tfmbs_libtorch SHARED IMPORTED)
set_target_properties(tfmbs_libtorch PROPERTIES
  IMPORTED_LOCATION ${torch_dir}/lib/${CMAKE_SHARED_LIBRARY_PREFIX}torch_cpu${CMAKE_SHARED_LIBRARY_SUFFIX}
  INTERFACE_INCLUDE_DIRECTORIES ${torch_dir}/include  # imported, so treated as system headers
  # The stable ABI as of 2.10: one library serves that torch and every later one.
  INTERFACE_COMPILE_DEFINITIONS TORCH_TARGET_VERSION=0x020a000000000000)

tfmbs_ask_python(nanobind_ROOT "nanobind" -m nanobind --cmake_dir)
find_package(nanobind CONFIG REQUIRED)

set(TFMBS_PYTHON_DIR pytfmbs)
if(APPLE)
  set(TFMBS_ORIGIN "@loader_path")
else()
  set(TFMBS_ORIGIN "$ORIGIN")
endif()

# Puts a library into the Python package. Not part of a plain `cmake --install`, which installs the
# C++ library. Torch's folder is left out of the run path: Python has loaded torch by then.
function(tfmbs_install_python target)
  set_target_properties(${target} PROPERTIES INSTALL_RPATH ${TFMBS_ORIGIN})
  install(TARGETS ${target}
          RUNTIME DESTINATION ${TFMBS_PYTHON_DIR} COMPONENT python EXCLUDE_FROM_ALL
          LIBRARY DESTINATION ${TFMBS_PYTHON_DIR} COMPONENT python EXCLUDE_FROM_ALL)
endfunction()
# libtfmbs under its soname alone, the one name that is asked for at run time: a wheel holds no links,
# and two files would be two devices. It needs no run path.
install(FILES $<TARGET_FILE:tfmbs> DESTINATION ${TFMBS_PYTHON_DIR}
        RENAME $<TARGET_SONAME_FILE_NAME:tfmbs> COMPONENT python EXCLUDE_FROM_ALL)
# As CMake strips the targets that it installs.
install(CODE "if(CMAKE_INSTALL_DO_STRIP)
  execute_process(COMMAND \"${CMAKE_STRIP}\" -x
    \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${TFMBS_PYTHON_DIR}/$<TARGET_SONAME_FILE_NAME:tfmbs>\")
endif()" COMPONENT python EXCLUDE_FROM_ALL)

# The libraries of the Python package, without the tests.
add_custom_target(python_libraries)
