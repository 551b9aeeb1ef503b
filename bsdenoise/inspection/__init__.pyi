from .measuring import measure as measure
from .records import InspectedFile as InspectedFile
from .records import Inspection as Inspection
from .run import inspect_files as inspect_files
