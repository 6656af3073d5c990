"""Detection and re-identification of objects in the frames of a UAV's thermal camera, for ROS 2."""
import pkgutil

# A source tree in the working directory comes before the installed copy, which alone holds the compiled
# messages: search all places on sys.path, so that neither hides what only the other has.
__path__ = pkgutil.extend_path(__path__, __name__)
