from . import compose as compose
from . import conf_files as conf_files
from . import reproduce as reproduce
from . import schema as schema
from . import variants as variants
from .compose import SweepRequest as SweepRequest
from .schema import GROUPS as GROUPS
from .schema import help_lines as help_lines
