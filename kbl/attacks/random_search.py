"""Random search: attacks whose steps each propose an image, and keep it if it is better."""

from abc import abstractmethod
from typing import ClassVar

from keras import ops

from kbl.attacks.attack import Attack
from kbl.attacks.state import Forward, State, keep
from kbl.typing import Tensor


class RandomSearch(Attack):
    """An attack that keeps of each image the best that it has tried, and knows nothing else of earlier steps.

    Where few images are left, several steps of each are tried at once, as many as a batch holds
    (`kbl.attacks.ahead`); what is found stays the same. So passes may be some more than steps, or fewer, as a
    step that changes nothing is not tried. An image that is fooled is done. `Square` (arXiv:1912.00049) is one.
    """

    looks_ahead: ClassVar[bool] = True

    @abstractmethod
    def plan(self, state: State, steps: Tensor) -> Tensor:
        """Return what steps need that nothing found in them changes, such as their random numbers.

        Many small operations cost less at once, so this is called for many steps.

        Args:
            state: of the batch.
            steps: (batch, S) int32, steps of each image.

        Returns:
            (batch, S, numbers of a step) float32.
        """

    @abstractmethod
    def propose(self, state: State) -> Tensor:
        """Return what a step tries in place of `best`, (batch, ...) float32 in [0, 1].

        Args:
            state: of the batch, with the numbers of the step, (batch, numbers of a step), as ``plan``.
        """

    @abstractmethod
    def judge(self, forward: Forward, state: State, x_adv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of what is tried, (batch,) float32, and whether it fools, (batch,) bool.

        Args:
            forward: images to logits.
            state: of the batch.
            x_adv: (batch, ...) what is tried.
        """

    def changes(self, state: State, plan: Tensor) -> Tensor | None:
        """Tell which of the planned steps change the best image, (batch, S) bool; None, the default, if all do."""
        return None

    def step(self, forward: Forward, state: State, i: Tensor) -> State:
        """Judge what is proposed and keep it if it is better."""
        steps = ops.expand_dims(ops.zeros_like(state["y"]) + i, 1)
        x_adv = self.propose({**state, "plan": self.plan(state, steps)[:, 0]})
        return keep(state, x_adv, *self.judge(forward, state, x_adv))
