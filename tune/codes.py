"""What a language model reads of a trail's unknown users, so that a walk decides for them as serving does.

Shapes: N events, H width of a code.
"""

from dataclasses import replace

import numpy as np

from actors.features.features import Ints
from actors.generator.generator import Embedding, Generator
from actors.generator.tasks import contexts
from tune.groundwork import Groundwork
from tune.walk import Trail


def told(trail: Trail, work: Groundwork, rows: Ints, generator: Generator, embed: Embedding | None = None) -> Trail:
    """The trail with the code of each user's first context; as it is where no language model reads.

    Of a user's later events, and of users beyond the first `generator.tasks`, there are none: the encoder makes them.

    Args:
        rows: of the data set's events, those that the trail was made of.
        embed: reads texts in place of the generator's own language model.
    """
    first = list({user: n for n, user in reversed(list(enumerate(trail.users_N))) if user is not None}.values())
    first = sorted(first)[: work.settings.generator.tasks]
    if generator.backbone is None or not first:
        return trail
    texts = [generator.serialiser.text(context) for context in contexts(work.dataset, np.sort(rows)[first])]
    code_UH = generator.contexts.codes((embed or generator.backbone.embed)(texts))
    code_NH = np.full((len(trail.log), code_UH.shape[1]), np.nan)
    code_NH[first] = code_UH
    return replace(trail, batch=replace(trail.batch, code_BH=code_NH))
