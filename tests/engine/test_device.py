import pytest
import torch

from assay.config import RunConfig
from assay.engine.device import check_backend, describe_machine, matmul_rate, resolve_plan
from assay.errors import ConfigError
from assay.schema import decode, override
from assay.train.config import TrainConfig
from assay.train.plan import ExecutionPlan

on_a_cpu = pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU here"
)
CPU = torch.device("cpu")


def config_of(**fields):
    return decode(TrainConfig, fields)


@on_a_cpu
def test_auto_is_float32_on_the_cpu_where_there_is_nothing_else():
    config = config_of()
    plan = resolve_plan(config)
    assert (plan.device, plan.autocast, plan.config) == (CPU, False, config)


@pytest.mark.parametrize(
    ("precision", "autocast"), [("auto", False), ("fp32", False), ("bf16", True)]
)
def test_on_a_cpu_bfloat16_is_taken_only_where_it_is_asked_for(precision, autocast):
    plan = resolve_plan(config_of(device="cpu", precision=precision))
    assert plan.autocast is autocast
    with plan.precision():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if autocast else torch.float32)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "cpu:0", "", "CPU", "cuda:-1"])
def test_a_device_that_is_not_there_is_one_sentence(device):
    with pytest.raises(ConfigError) as caught:
        resolve_plan(config_of(device=device))
    message = str(caught.value)
    assert message.startswith(f"train.device: {device!r} found; expected auto or one of: cpu")
    assert message.count("\n") == 0


@on_a_cpu
def test_a_gpu_that_is_not_there_is_refused_before_any_work():
    with pytest.raises(ConfigError, match=r"'cuda' found; expected auto or one of: cpu\.$"):
        resolve_plan(config_of(device="cuda"))


def test_a_graph_needs_a_cuda_device():
    with pytest.raises(
        ConfigError, match=r"^train\.backend: graphs found on device cpu; expected a"
    ):
        resolve_plan(config_of(device="cpu", backend="graphs"))


def test_dropout_is_not_recorded():
    plan = ExecutionPlan(config_of(backend="graphs"), CPU, False)
    config = override(RunConfig(), {"model.dropout": 0.2, "train.backend": "graphs"})
    with pytest.raises(
        ConfigError, match=r"^train\.backend: graphs found, but a dropout of 0\.2 would"
    ):
        check_backend(config, plan)


@pytest.mark.slow
@pytest.mark.parametrize("autocast", [False, True])
def test_the_rate_of_products_is_that_of_a_computer(autocast):
    """More than a pocket calculator's and less than all the machines of the world: 1e6 to 1e21."""
    assert 1e6 < matmul_rate(CPU, autocast=autocast) < 1e21


def test_the_description_names_what_may_change_the_bits():
    torch.set_num_threads(1)
    machine = describe_machine(resolve_plan(config_of(device="cpu", precision="bf16")))
    assert (machine["device"], machine["precision"], machine["threads"]) == ("cpu", "bf16", 1)
    assert machine["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert all(isinstance(value, str | int) for value in machine.values())
