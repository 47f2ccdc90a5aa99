# Tests of the order of docs/architecture.md: what each layer may see, through others or directly.
# Left never sees right, and what stands side by side never sees its neighbour.
set(TFMBS_SEES_format)
set(TFMBS_SEES_execution)
set(TFMBS_SEES_kernels format)
set(TFMBS_SEES_linear format execution kernels)
set(TFMBS_SEES_decode format execution kernels linear)
set(TFMBS_SEES_placement format)
set(TFMBS_SEES_fabric format)
set(TFMBS_SEES_device format execution kernels placement fabric)
set(TFMBS_SEES_runtime ${TFMBS_SEES_device} linear device)
set(TFMBS_SEES_c_interface ${TFMBS_SEES_runtime} runtime)

# The layers that a target links, and those that these link.
function(tfmbs_linked_layers target variable)
  set(found)
  get_target_property(libraries ${target} LINK_LIBRARIES)
  foreach(library IN LISTS libraries)
    if(library MATCHES "^tfmbs_(.+)$")
      list(APPEND found ${CMAKE_MATCH_1})
      tfmbs_linked_layers(${library} further)
      list(APPEND found ${further})
    endif()
  endforeach()
  list(REMOVE_DUPLICATES found)
  set(${variable} ${found} PARENT_SCOPE)
endfunction()

set(scripts ${CMAKE_CURRENT_LIST_DIR})
list(JOIN TFMBS_LAYERS , layers)
foreach(layer IN LISTS TFMBS_LAYERS)
  tfmbs_linked_layers(tfmbs_${layer} linked)
  list(JOIN linked , linked)
  list(JOIN TFMBS_SEES_${layer} , sees)
  add_test(NAME walls_${layer}
    COMMAND ${CMAKE_COMMAND} -DLAYER=${layer} -DLAYERS=${layers} -DSEES=${sees} -DLINKED=${linked}
            -DFOLDER=${PROJECT_SOURCE_DIR}/cpp/${layer} -DNM=${CMAKE_NM}
            -DARCHIVE=$<TARGET_FILE:tfmbs_${layer}> -P ${scripts}/check_walls.cmake)
endforeach()
# A program on one layer holds nothing of what this layer does not see.
list(JOIN TFMBS_SEES_linear , sees)
add_test(NAME walls_linear_alone
  COMMAND ${CMAKE_COMMAND} -DLAYER=linear -DLAYERS=${layers} -DSEES=${sees} -DLINKED=${sees}
          -DNM=${CMAKE_NM} -DARCHIVE=$<TARGET_FILE:linear_alone> -P ${scripts}/check_walls.cmake)
if(CMAKE_SYSTEM_NAME STREQUAL Linux AND NOT TFMBS_SANITIZE)
  add_test(NAME exports
    COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DLIBRARY=$<TARGET_FILE:tfmbs>
            -DSOURCES=${PROJECT_SOURCE_DIR}/cpp -DGENERATED=${PROJECT_BINARY_DIR}/include
            -DLAYERS=${layers} -P ${scripts}/check_exports.cmake)
endif()
