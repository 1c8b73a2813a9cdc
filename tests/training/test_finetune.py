from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from plain import apply_plain, calibrate

from qsci_plugins.architectures.sr.edsr import EDSR
from qsci_plugins.errors import UserError
from qsci_plugins.schemes.placement import Placement
from qsci_plugins.schemes.registry import make_scheme
from qsci_plugins.schemes.scheme import QuantizedNetwork
from qsci_plugins.training.finetune import bits_above, finetune
from qsci_plugins.training.settings import FineTuning

PLACEMENT = Placement(("body.?.body.*",))
BLOCKS = ["body.0", "body.1"]
JOINT = FineTuning(steps=8, checkpoint_every=3, precision="float32")
PUBLISHED = JOINT.model_copy(update={"schedule": "published", "turn": 3, "steps": 9})


def _float() -> EDSR:
    torch.manual_seed(0)
    return EDSR(blocks=2, width=8, scale=2).eval()


def _patches() -> torch.Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float()


def _network(form: str = "integer", **settings: Any) -> QuantizedNetwork:
    scheme = make_scheme({"name": "adabm", "weight_bits": 3, "activation_bits": 3, "form": form, **settings})
    network = apply_plain(_float(), scheme, PLACEMENT, _patches())
    calibrate(network, [_patches()])
    return network


def _error(network: QuantizedNetwork) -> float:
    with torch.no_grad():
        return (network.model(_patches()) - _float()(_patches())).abs().mean().item()


def test_the_joint_schedule_comes_closer_to_the_float_network() -> None:
    network = _network(reconstruct_weights=False)
    before = _error(network)
    result = finetune(network, _float(), _patches(), JOINT.model_copy(update={"steps": 60, "weight_rate": 0.05}))
    assert result.finished
    assert len(result.losses) == result.steps == 60
    assert _error(network) < 0.9 * before


def test_the_published_schedule_moves_one_kind_of_parameter_a_turn() -> None:
    network = _network("faithful")
    weights = {name: p.detach().clone() for name, p in _float().named_parameters()}
    seen: list[set[str]] = []
    last = {name: p.detach().clone() for name, p in network.model.named_parameters()}

    def moved(step: int, scalars: dict[str, float]) -> None:
        now = dict(network.model.named_parameters())
        names = {".".join(name.split(".")[-2:]) for name, before in last.items() if not torch.equal(now[name], before)}
        seen.append(names)
        last.update({name: p.detach().clone() for name, p in now.items()})

    finetune(network, _float(), _patches(), PUBLISHED, blocks=BLOCKS, on_step=moved)
    assert seen[1] == {"weight_quantizer.upper"}
    assert seen[4]
    assert seen[4] <= {"activation_quantizer.lower", "activation_quantizer.upper"}
    assert seen[7]
    assert seen[7] <= {"bit_width.measure", "image_module.lower", "image_module.upper"}
    for name, before in weights.items():
        assert torch.equal(dict(network.model.named_parameters())[name], before), name


def test_the_published_feature_loss_is_that_of_the_published_code() -> None:
    network, settings = _network("faithful"), PUBLISHED.model_copy(update={"steps": 1})
    patches = _patches()[:2]  # a step takes both

    def outputs_of(model: torch.nn.Module) -> tuple[torch.Tensor, list[torch.Tensor]]:
        blocks: list[torch.Tensor] = []
        handles = [
            model.get_submodule(name).register_forward_hook(lambda module, inputs, output: blocks.append(output))
            for name in BLOCKS
        ]
        with torch.no_grad():
            output = model(patches)
        for handle in handles:
            handle.remove()
        return output, blocks

    expected, theirs = outputs_of(_float())
    output, ours = outputs_of(network.model)
    # a batch is divided by its norm as a whole, and every sample of every block is then a distance of its own
    joined = [torch.cat([block / block.norm() for block in blocks]) for blocks in (ours, theirs)]
    distances = [(a - b).norm() / 2 / len(joined[0]) for a, b in zip(*joined, strict=True)]
    by_hand = (output - expected).abs().mean() + settings.feature_weight * torch.stack(distances).sum()
    result = finetune(network, _float(), patches, settings, blocks=BLOCKS)
    assert result.losses[0] == pytest.approx(by_hand.item(), rel=1e-3)  # the float network's blocks are kept in 16 bits


@pytest.mark.parametrize(("bits", "loss", "gradient"), [(3.9, 0.0, 0.0), (4.0, 0.0, 0.5), (4.25, 0.25, 1.0)])
def test_the_bit_loss_passes_half_of_its_gradient_at_the_base(bits: float, loss: float, gradient: float) -> None:
    mean_bits = torch.tensor(bits, requires_grad=True)
    value = bits_above(mean_bits, 4.0)
    value.backward()
    assert (value.item(), mean_bits.grad) == (loss, torch.tensor(gradient))


def test_a_published_rate_decays_with_the_turns_of_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.Adam.step

    def recorded(optimizer: torch.optim.Adam, closure: None = None) -> None:
        moving = [group for group in optimizer.param_groups if group["params"][0].requires_grad]
        rates.append(max(group["lr"] for group in moving))
        step(optimizer)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    finetune(
        _network("faithful"), _float(), _patches(), PUBLISHED.model_copy(update={"turn": 1, "steps": 7}), blocks=BLOCKS
    )
    # weight ranges, activation ranges, image mapping; each for the second and third time slower
    assert rates == pytest.approx([0.01, 0.01, 0.1, 0.009, 0.009, 0.09, 0.0081])


@pytest.mark.parametrize("settings", [JOINT, PUBLISHED], ids=["joint", "published"])
def test_an_interrupted_run_resumes_to_the_same_weights(settings: FineTuning, tmp_path: Path) -> None:
    form = "faithful" if settings.schedule == "published" else "integer"
    whole = _network(form)
    finetune(whole, _float(), _patches(), settings, blocks=BLOCKS)

    def interrupt(step: int, scalars: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    file = tmp_path / "finetune.pt"
    first = _network(form)
    stopped = finetune(first, _float(), _patches(), settings, file, blocks=BLOCKS, on_step=interrupt)
    assert (stopped.steps, stopped.finished) == (5, False)
    second = _network(form)
    finished = finetune(second, _float(), _patches(), settings, file, blocks=BLOCKS)
    assert finished.finished
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name
    assert [file.name for file in tmp_path.iterdir()] == ["finetune.pt"]


def test_a_state_of_the_time_before_the_common_loop_is_continued(tmp_path: Path) -> None:
    whole = _network()
    finetune(whole, _float(), _patches(), JOINT)

    def die(step: int, scalars: dict[str, float]) -> None:
        if step == 4:
            raise MemoryError

    file = tmp_path / "finetune.state"
    with pytest.raises(MemoryError):
        finetune(_network(), _float(), _patches(), JOINT, file, on_step=die)
    state = torch.load(file, weights_only=True)
    torch.save({key: state[key] for key in ("model", "optimizer", "step", "settings")}, file)
    rest = _network()
    assert len(finetune(rest, _float(), _patches(), JOINT, file).losses) == 5
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], tensor), name


def test_other_settings_do_not_continue_a_run(tmp_path: Path) -> None:
    file = tmp_path / "finetune.pt"
    finetune(_network(), _float(), _patches(), JOINT, file)
    with pytest.raises(UserError, match="other settings"):
        finetune(_network(), _float(), _patches(), JOINT.model_copy(update={"seed": 1}), file)
    file.write_text("a text")
    with pytest.raises(UserError, match="does not continue this run"):
        finetune(_network(), _float(), _patches(), JOINT, file)


def test_everything_is_trainable_again_afterwards() -> None:
    network = _network()
    before = {name: p.requires_grad for name, p in network.model.named_parameters()}
    finetune(network, _float(), _patches(), JOINT)
    assert {name: p.requires_grad for name, p in network.model.named_parameters()} == before


def test_an_uncalibrated_network_is_refused() -> None:
    scheme = make_scheme({"name": "adabm"})
    network = apply_plain(_float(), scheme, PLACEMENT, _patches())
    with pytest.raises(UserError, match="calibrate it first"):
        finetune(network, _float(), _patches(), JOINT)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(UserError, match="at step 0"):
        finetune(_network(), _float(), _patches() * float("nan"), JOINT)
