from . import html as html
from . import mlflow as mlflow
from . import table as table
from .comparison import compared as compared
from .comparison import same_engines as same_engines
from .ranking import Answer as Answer
from .ranking import answer as answer
from .ranking import with_overrides as with_overrides
