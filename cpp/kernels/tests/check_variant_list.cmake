# cmake -DFOLDER=<scratch> -P check_variant_list.cmake: variants.cmake reads a toy list with toy files,
# and refuses lists and files that do not fit each other.
cmake_minimum_required(VERSION 3.24)
set(TFMBS_VARIANTS_FILE ${FOLDER}/variants.json)
set(TFMBS_KERNEL_SOURCES ${FOLDER}/src)
set(reader ${CMAKE_CURRENT_LIST_DIR}/../variants.cmake)

set(portable "{\"name\": \"portable\", \"architecture\": \"any\",
  \"trit_layouts\": [\"trit_quads\", \"trit_fives\"], \"int8_layouts\": [\"int8_quads\", \"int8_fives\"]}")
set(base "{\"name\": \"base\", \"parent\": \"portable\", \"architecture\": \"x86\",
  \"features\": [\"one\", \"two\"], \"gnu_options\": {\"options\": [\"-Wno-toy\"], \"why\": \"\"},
  \"int8_scratch\": {\"bytes\": 64, \"least_rows\": 2, \"least_outputs\": 3, \"why\": \"\"},
  \"peaks\": {\"int8\": [\"a\", \"b\"]}}")
set(child "{\"name\": \"child\", \"parent\": \"base\", \"features\": [\"three\"]}")
set(arm "{\"name\": \"arm\", \"parent\": \"portable\", \"architecture\": \"arm64\",
  \"features\": [\"four\", \"five\"]}")

# The list and the files, anew.
function(lay_out list)
  file(REMOVE_RECURSE ${FOLDER})
  list(JOIN list , list)
  file(WRITE ${TFMBS_VARIANTS_FILE} "{\"variants\": [${list}]}")
  foreach(file IN LISTS ARGN)
    file(WRITE ${TFMBS_KERNEL_SOURCES}/${file}.cpp "")
  endforeach()
endfunction()

function(expect what found wanted)
  if(NOT found STREQUAL wanted)
    message(SEND_ERROR "${what}: \"${found}\", not \"${wanted}\"")
  endif()
endfunction()

function(expect_text file)
  file(READ ${FOLDER}/made/${file} text)
  math(EXPR last "${ARGC} - 1")
  foreach(i RANGE 1 ${last})
    string(FIND "${text}" "${ARGV${i}}" place)
    if(place LESS 0)
      message(SEND_ERROR "${file} lacks \"${ARGV${i}}\":\n${text}")
    endif()
  endforeach()
endfunction()

# Reading in a process of its own ends with this message.
function(expect_refusal message list)
  lay_out("${list}" ${ARGN})
  execute_process(
    COMMAND ${CMAKE_COMMAND} -DTFMBS_VARIANTS_FILE=${TFMBS_VARIANTS_FILE}
            -DTFMBS_KERNEL_SOURCES=${TFMBS_KERNEL_SOURCES} -P ${reader}
    RESULT_VARIABLE failed ERROR_VARIABLE said OUTPUT_QUIET)
  string(REGEX REPLACE "[ \n]+" " " said "${said}")
  if(NOT failed OR NOT said MATCHES "${message}")
    message(SEND_ERROR "not refused with \"${message}\", but: ${said}")
  endif()
endfunction()

set(files add/portable sum/portable add/base sum/base add/child add/arm)
lay_out("${portable};${base};${child};${arm}" ${files})
include(${reader})
expect("operations" "${TFMBS_OPERATIONS}" "add;sum")
expect("variants" "${TFMBS_VARIANTS}" "portable;base;child;arm")
expect("own files" "${variant_child_own}" "add")
expect("architecture of its parent" "${variant_child_architecture}" x86)
set(gnu "$<$<CXX_COMPILER_ID:GNU>:-Wno-toy>")
expect("options" "${variant_child_options}" "-mone;-mtwo;-mthree;${gnu}")
expect("options of ARM" "${variant_arm_options}" "-march=armv8.2-a+four+five")
expect("no options" "${variant_portable_options}" "")
expect("question" "${variant_portable_supported}" true)
string(CONCAT question "__builtin_cpu_supports(\"one\") && __builtin_cpu_supports(\"two\")"
              " && __builtin_cpu_supports(\"three\")")
expect("question of x86" "${variant_child_supported}" "${question}")
expect("question of ARM" "${variant_arm_supported}" "cpu_has_four() && cpu_has_five()")

tfmbs_write_kernel_headers(${FOLDER}/made portable base child)
expect_text(kernel_table.hpp "constexpr KernelSet child_set() noexcept {\n  KernelSet set = base_set();"
  "  set.add = child::add;\n  return set;" "return ${question};"
  "{WeightLayout::kTritQuads, WeightLayout::kTritFives}"
  "kKernels[] = {\n    portable_set(),\n    base_set(),\n    child_set(),\n}")
expect_text(kernel_functions.hpp "kInt8Scratch{.bytes = 64, .least_rows = 2, .least_outputs = 3}"
  "namespace child {\nstd::remove_pointer_t<decltype(KernelSet::add)> add;\n}")
expect_text(kernel_operations.hpp "kOperations = 2" "visit(\"sum\", &KernelSet::sum)"
  "{\"child\", \"base\"}" "{\"child\", \"add\"}")
expect_text(peaks.hpp "std::size_t tfmbs_int8_peak_base() noexcept"
  "Peak{\"int8/base\", tfmbs_int8_peak_base}" "std::array<Peak, 1>")

set(both "${portable};${base}")
set(fitting add/portable add/base)
expect_refusal("has no variant \"avx9\"" "${both}" ${fitting} add/avx9)
expect_refusal("without a portable.cpp" "${both}" ${fitting} other/base)
expect_refusal("base has no file" "${both}" add/portable)
expect_refusal("no name, or is there twice" "${both};${base}" ${fitting})
expect_refusal("the parent of child, \"base\", is not before it" "${portable};${child};${base}"
  ${fitting} add/child)
expect_refusal("unknown field, \"feature\"" "${portable};{\"name\": \"base\", \"feature\": []}" ${fitting})
expect_refusal("of two architectures"
  "${both};{\"name\": \"child\", \"parent\": \"base\", \"architecture\": \"arm64\"}"
  ${fitting} add/child)
expect_refusal("x86 or arm64, or any without"
  "${portable};{\"name\": \"base\", \"parent\": \"portable\", \"features\": [\"one\"]}" ${fitting})
file(REMOVE_RECURSE ${FOLDER})
