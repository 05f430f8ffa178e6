"""One training loop for the whole book: on a laptop, on a GPU, in several processes, today and after a power cut.

Read `loop` first: `fit` is the loop, `pretrain` is SimCLR in a few lines on top of it. Everything else is a helper that
the loop calls by name, in a file of its own:

| file | what |
| --- | --- |
| `loop` | `fit`, `pretrain`, `online_knn` |
| `batches` | rows of tensors, items of a ``Dataset`` or batches of a ``DataLoader``, in a reproducible order |
| `views` | two random views of every image, in a batch or one by one |
| `stepping` | optimizers and schedules by name or as a function, mixed precision |
| `watching` | is the loss still a number? which step lost it, and was it the data? |
| `checkpoints` | everything a run needs to go on, written so that one good file always exists |
| `chunks` | gradient caching: a batch of any size with the activations of a part |
| `processes` | several processes that share one batch |
| `generators` | the random generators that a function or a network can reach |
| `advice` | an argument that is not there is answered with the one that is |
| `settings` | device, scale, seeds |
"""

from .batches import batches
from .chunks import in_chunks
from .loop import History, fit, online_knn, pretrain
from .processes import gather, process_group
from .settings import at_scale, device, seed_everything
from .stepping import cosine
from .views import TwoViews

__all__ = [
    "History",
    "TwoViews",
    "at_scale",
    "batches",
    "cosine",
    "device",
    "fit",
    "gather",
    "in_chunks",
    "online_knn",
    "pretrain",
    "process_group",
    "seed_everything",
]
