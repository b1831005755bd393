"""What a run's validation losses say: whether to go on, in words."""

import math

History = list[tuple[int, float]]
# Losses that differ by less say nothing.
_SAME = 0.005


def advice(history: History) -> str | None:
    """Advice on when to stop, from validation losses in the order of their steps; None while there are too few.

    The loop never stops by itself: the least loss is not always the best music.
    """
    if history and not math.isfinite(history[-1][1]):
        return f"the validation loss at step {history[-1][0]} is not finite; lower the learning rate"
    finite = [(step, loss) for step, loss in history if math.isfinite(loss)]
    if len(finite) < 3:
        return None
    best_step, best = min(finite, key=lambda entry: entry[1])
    last_step, last = finite[-1]
    since = [loss for step, loss in finite if step > best_step]
    if not since:
        begun = finite[-3][1]
        if begun - last > _SAME * abs(begun):
            return f"validation loss still falls ({last:.4g} at step {last_step}); more steps may help"
        return f"validation loss hardly moves any more ({last:.4g} at step {last_step}); this is a good place to stop"
    if len(since) >= 2 and min(since[-2:]) > best + _SAME * abs(best):
        return (
            f"validation loss was least at step {best_step} ({best:.4g}) and has risen since ({last:.4g} at step "
            f"{last_step}); stop here and train {best_step} steps, or lower the learning rate"
        )
    return None
