from .report import Results as Results
from .report import frame as frame
from .report import load as load

__version__: str
