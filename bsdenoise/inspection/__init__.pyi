from .records import Inspection as Inspection
from .run import inspect_files as inspect_files
