from . import html as html
from . import mlflow as mlflow
from . import table as table
from .comparison import compared as compared
from .comparison import same_engines as same_engines
from .comparison import speedups as speedups
from .ranking import Answer as Answer
from .ranking import answer as answer
