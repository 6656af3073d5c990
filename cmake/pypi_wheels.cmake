# Used by `pip install` alone: finds the ROS 2 packages that pip laid beside the interpreter (the ros-*
# wheels) and mends what they export.
execute_process(
  COMMAND ${Python3_EXECUTABLE} -c
    "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).resolve().parents[4])"
  OUTPUT_VARIABLE _ros_prefix OUTPUT_STRIP_TRAILING_WHITESPACE
  COMMAND_ERROR_IS_FATAL ANY)
message(STATUS "ROS 2 wheels found in ${_ros_prefix}")
list(PREPEND CMAKE_PREFIX_PATH ${_ros_prefix})
set(ENV{AMENT_PREFIX_PATH} ${_ros_prefix})

# The wheels name include folders of the machine that built them (/opt/python/cp3xx-cp3xx/...), and CMake
# refuses a target with an include folder that does not exist. Runs last, when all targets are known.
function(_prune_missing_includes)
  get_property(_targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(_target IN LISTS _targets)
    get_target_property(_dirs ${_target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT _dirs)
      continue()
    endif()
    set(_kept "")
    foreach(_dir IN LISTS _dirs)
      if(_dir MATCHES "^\\$<" OR EXISTS "${_dir}")
        list(APPEND _kept "${_dir}")
      endif()
    endforeach()
    set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_kept}")
  endforeach()
endfunction()
cmake_language(DEFER CALL _prune_missing_includes)

# Exported include folders may not lie in the source tree, as numpy's do where .venv is made there: nothing
# builds against the wheel, so keep them for this build alone.
function(_keep_includes_to_this_build)
  set(_target ${PROJECT_NAME}__rosidl_generator_py)
  get_target_property(_dirs ${_target} INTERFACE_INCLUDE_DIRECTORIES)
  list(TRANSFORM _dirs REPLACE "^(/.*)$" "$<BUILD_INTERFACE:\\1>")
  set_target_properties(${_target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${_dirs}")
endfunction()
cmake_language(DEFER CALL _keep_includes_to_this_build)
