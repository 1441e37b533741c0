"""Whole networks between data sets, by bundles that make them for images that they are shown.

A method mixes what the generator has made of the images (its slots, linearly or spherically), from which it makes a
network at every point; or the *weights* of the endpoints' networks (linearly; the baseline). Nothing is drawn, so that
there is one path for each method. Closed-form heads are fitted to the images of every endpoint, on the trunk of the
point, and mixed by the shares.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d2nwg.data.arrays import load_arrays
from d2nwg.data.deep import PixelScale
from d2nwg.data.image_set import ImageSet
from d2nwg.evaluation.network_baselines import module_for
from d2nwg.interpolation.endpoints import Endpoint, Endpoints, names_of, restricted, shared_classes
from d2nwg.interpolation.methods import BASELINE, CONDITION, CONDITION_SPHERICAL
from d2nwg.interpolation.mixer import Methods, blend, mixed_weights
from d2nwg.models.hypernetwork import Slots
from d2nwg.network_generation import ROWS, split
from d2nwg.pipelines.dataset_networks import DatasetNetworkPipeline
from d2nwg.utils.errors import UserError
from d2nwg.utils.limits import check_memory
from d2nwg.utils.progress import Progress, silent
from d2nwg.weights.network_files import NetworkFile
from d2nwg.weights.networks import State
from d2nwg.weights.populations import accuracy_of, logits_of
from d2nwg.weights.small_networks import MAX_CLASSES


def read_network_endpoints(
    sources: Sequence[Any],
    pipe: DatasetNetworkPipeline,
    *,
    shots: int,
    seed: int,
    max_query: int | None,
    progress: Progress = silent,
) -> Endpoints:
    """As `d2nwg.interpolation.endpoints.read_endpoints`, with images as the bundle's networks take them, bytes (n, c,
    s, s), in place of features.

    Raises:
        UserError: an endpoint is no data set of images, or what `read_endpoints` refuses.
    """
    for source in sources:
        if not isinstance(source, ImageSet):
            raise UserError("Between whole networks every endpoint is a data set of images: give some for each.")
    names = names_of(sources)
    classes, notes = shared_classes([tuple(source.classes) for source in sources], names)
    if len(classes) > MAX_CLASSES:
        raise UserError(
            f"The endpoints share {len(classes):,} classes, and a small network tells at most {MAX_CLASSES:,} apart: "
            "leave some out."
        )
    config, members, scale = pipe.weight_space.config, [], PixelScale()
    for source, name in zip(sources, names, strict=True):
        images = restricted(source, classes)

        def read(stage: str, done: int, total: int, name=name) -> None:
            progress(f"{stage} of {name}", done, total)

        scale |= images.pixels.scale(read)
        data = load_arrays(images, size=config.size, rows=ROWS, seed=seed, progress=read)
        seen, labels, query, truth, index = split(data, config.channels, shots, max_query, seed)
        support = [seen[labels == label] for label in range(len(classes))]
        items = [images.items[i] for i in index]
        members.append(Endpoint(name, support, query, truth, items))
        notes += data.notes
    return Endpoints(tuple(members), classes, "", {}, tuple(notes), scale)


class NetworkMixer(Methods):
    """Interpolates whole networks between endpoints: as `d2nwg.interpolation.mixer.Mixer`, for one path a method.

    Args:
        pipe: the bundle's pipeline.
        endpoints: E of them, of `read_network_endpoints`.
        seed: of the split of the endpoints' images.
        progress: stage "Making the endpoints".
    """

    noun, steps, num_samples = "network", 0, 1
    zoo_conditions = None  # the bundle keeps none

    def __init__(
        self, pipe: DatasetNetworkPipeline, endpoints: Endpoints, *, seed: int = 0, progress: Progress = silent
    ):
        self.pipe, self.endpoints, self.seeds = pipe, endpoints, (seed,)
        self.module = module_for(pipe.weight_space, len(endpoints.classes))
        self.slots, self.support, self.targets = [], [], []
        device, count = pipe.weight_space.centre.device, len(endpoints.classes)
        for number, endpoint in enumerate(endpoints.members):
            progress("Making the endpoints", number, len(endpoints.members))
            images = endpoint.support or []
            labels = torch.arange(count).repeat_interleave(torch.tensor([len(part) for part in images]))
            with torch.inference_mode():
                slots, support = pipe.encode(torch.cat(images).to(device), labels.to(device))
            self.slots.append(slots)
            self.support.append(support)
            self.targets.append(torch.eye(count, device=device)[labels.to(device)].unsqueeze(0))
        ends = self._made(CONDITION, torch.eye(len(endpoints.members), device=device))
        self.states = [{name: value[i : i + 1] for name, value in ends.items()} for i in range(len(endpoints.members))]
        progress("Making the endpoints", len(endpoints.members), len(endpoints.members))

    def _why_not(self, method: str) -> str:
        if method in (BASELINE, CONDITION, CONDITION_SPHERICAL):
            return ""
        return f"The method {method} needs a bundle with a VAE; this one makes whole networks without."

    def heads(self, method: str, mix: Tensor, progress: Progress = silent) -> State:
        """See `Mixer`: networks (1, P, …)."""
        self.check(method)
        mix, space = mix.float(), self.pipe.weight_space
        each = 4 * space.numel + 16 * sum(one.shape[1] for one in self.support) * (space.num_features + mix.shape[1])
        what = f"Making {len(mix):,} networks at once"
        check_memory(4 * len(mix) * each, what, "ask for fewer points or shots", space.centre.device)
        if method == BASELINE:
            return mixed_weights(self.states, mix.cpu())
        made = self._made(method, mix.to(space.centre.device))
        return {name: value.unsqueeze(0) for name, value in made.items()}

    @torch.inference_mode()
    def _made(self, method: str, mix: Tensor) -> State:
        """The networks (P, …) of mixed slots, on the CPU."""
        space, model, spherical = self.pipe.weight_space, self.pipe.hypernetwork, method == CONDITION_SPHERICAL
        slots = Slots(
            blend([one.classes[0] for one in self.slots], mix, spherical),
            blend([one.pooled[0] for one in self.slots], mix, spherical),
        )
        trunk = space.trunk_state(model.trunks(slots, space.basis))
        if model.config.head == "closed-form":
            fitted = [
                model.closed_form_rows(space.features(trunk, support), targets)
                for support, targets in zip(self.support, self.targets, strict=True)
            ]
            rows = sum(
                (share[:, None, None] * one for share, one in zip(mix.T, fitted, strict=True)), mix.new_zeros(())
            )
        else:
            rows = model.head_rows(slots, space)
        return {name: value.cpu() for name, value in space.network_state(trunk, rows).items()}

    def score(self, state: State) -> Tensor:
        """See `Mixer`: accuracies (E, 1, P)."""
        flat, space, found = {name: value.flatten(0, 1) for name, value in state.items()}, self.pipe.weight_space, []
        for number in self.endpoints.scored:
            endpoint = self.endpoints.members[number]
            query = space.normalised(endpoint.query.to(space.centre.device)).cpu()
            found.append(accuracy_of(self.module, flat, query.unsqueeze(0), endpoint.labels.unsqueeze(0)))
        return torch.stack(found).unsqueeze(1)

    def condition(self, method: str, mix: Tensor) -> None:
        """See `Mixer`: no zoo's conditions are kept to compare with."""

    def probabilities(self, state: State, query: Tensor) -> Tensor:
        """See `Mixer`: of one network, for bytes (n, c, s, s)."""
        space = self.pipe.weight_space
        given = space.normalised(query.to(space.centre.device)).cpu().unsqueeze(0)
        return logits_of(self.module, {name: value.unsqueeze(0) for name, value in state.items()}, given)[0].softmax(-1)

    def file(self, state: State, info: dict) -> NetworkFile:
        """See `Mixer`: a `NetworkFile`."""
        config = self.pipe.weight_space.config
        shape = config.network, config.channels, self.endpoints.classes, config.size
        made = NetworkFile(state, *shape, config.mean, config.std, info["bundle"], info)
        made.keep_scale(self.endpoints.scale)
        return made

    def in_weights(self, states: dict[str, State]) -> tuple[Tensor, dict[str, Tensor]] | None:
        """See `Mixer`: trunks, in standardised numbers."""
        space = self.pipe.weight_space
        if len(space.zoo_trunks) < 3:
            return None
        device = space.centre.device
        on = {m: {name: value.to(device) for name, value in state.items()} for m, state in states.items()}
        return space.zoo_trunks.cpu(), {m: space.standardised(space.split(s)[0]).cpu() for m, s in on.items()}
