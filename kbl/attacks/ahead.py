"""Steps of one image tried several at once, for a `kbl.attacks.random_search.RandomSearch`."""

from typing import Any

from keras import ops

from kbl.attacks.state import Forward, State, keep
from kbl.typing import Tensor

SPAN = 20  # calls of `step` that are planned at once
MOST = 4  # steps tried at once; of more, too many would come after one that is kept
_SEEN = 3  # steps looked at for one that is tried
_KEPT = ("ahead", "length", "taken", "plan", "planned")  # of the state, what an attack does not see


def plan(attack: Any, state: State) -> State:
    """Add what the attack's `plan` says of each image's next steps.

    Args:
        attack: a random search.
        state: with ``taken`` and ``length``, (batch,) int32, the steps that each image has taken and is to take, and
            ``ahead``, (batch, k) int32, 0 … k - 1 for each image.
    """
    steps = ops.arange(SPAN * _SEEN * state["ahead"].shape[1], dtype="int32")
    return {
        **state,
        "plan": attack.plan(state, ops.expand_dims(state["taken"], 1) + steps),
        "planned": state["taken"],
    }


def step(attack: Any, forward: Forward, state: State) -> State:
    """Try k of each image's next steps, and keep the first that betters it.

    Those after it are for nothing and are tried again from there, and steps that would change nothing are passed over:
    what is found is what steps one by one find.

    Args:
        attack: a random search.
        forward: images to logits.
        state: planned by `plan`, no more than `SPAN` calls ago.
    """
    ahead, length, taken = state["ahead"], state["length"], ops.expand_dims(state["taken"], 1)
    batch, k = ahead.shape
    seen, images = _SEEN * k, ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    plans = ops.reshape(state["plan"], (batch * SPAN * seen, -1))
    next_ = images * (SPAN * seen) + taken - ops.expand_dims(state["planned"], 1)

    def planned(places: Tensor) -> Tensor:
        return ops.take(plans, ops.reshape(next_ + places, (-1,)), axis=0)

    window = ops.arange(seen, dtype="int32")
    changes = attack.changes(state, ops.reshape(planned(window), (batch, seen, -1)))
    if changes is None:
        tried, passed = ahead, k
    else:
        # Those that change something, and then the others; beyond the last that is tried comes the next to try.
        order = ops.sort(ops.where(changes, window, window + seen), axis=1)
        tried, passed = order[:, :k], ops.minimum(order[:, k : k + 1], seen)
    vain = ops.reshape((tried >= seen) | (taken + tried >= ops.expand_dims(length, 1)), (-1,))
    tried = ops.mod(tried, seen)
    own = {name: tensor for name, tensor in state.items() if name not in _KEPT}
    wide = {**_repeated(own, k), "plan": planned(tried)}
    x_adv = attack.propose(wide)
    score, hit = attack.judge(forward, wide, x_adv)
    score, hit = ops.where(vain, -float("inf"), score), hit & ~vain
    better = ops.reshape(hit | (score > wide["score"]), (batch, k))
    kept = ops.min(ops.where(better, ahead, k - 1), axis=1, keepdims=True)
    kept = ops.reshape(images * k + kept, (-1,))
    found = keep(state, *(ops.take(tensor, kept, axis=0) for tensor in (x_adv, score, hit)))
    passed = ops.min(ops.where(better, tried + 1, passed), axis=1)
    taken = ops.minimum(state["taken"] + passed, length)
    return {**found, "done": found["done"] | (taken >= length), "taken": taken}


def _repeated(state: State, times: int) -> State:
    """Return each row so many times, one after the other."""

    def wide(tensor: Tensor) -> Tensor:
        shape = tensor.shape[1:]
        tensor = ops.broadcast_to(ops.expand_dims(tensor, 1), (tensor.shape[0], times, *shape))
        return ops.reshape(tensor, (-1, *shape))

    return {name: wide(tensor) for name, tensor in state.items()}
