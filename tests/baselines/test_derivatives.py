"""Derivatives of the network that are written out, against automatic differentiation in float64."""

import pytest

torch = pytest.importorskip("torch")
from kshot_baselines import derivatives, policies  # noqa: E402
from kshot_baselines.policies import Outputs, Shape  # noqa: E402

TASKS, N = 3, 7
SHAPES = [
    Shape((3, 8, 6, 2), "tanh", False),
    Shape((3, 8, 6, 2), "relu", False),
    Shape((2, 5), "tanh", True),  # no hidden layer
    Shape((2, 9, 4), "tanh", True),
    Shape((2, 20, 18, 17, 20), "tanh", False),  # layers that take the way of wide ones
    Shape((4, 8, 6, 2), "tanh", False, 2),  # a latent
    Shape((2, 5), "relu", True, 1),
    Shape((20, 18, 17, 2), "relu", False, 17),
]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def params_of(shape, device):
    sizes = policies.shapes_of_params(shape)
    return {k: torch.randn(TASKS, *size, dtype=torch.float64, device=device) for k, size in sizes.items()}


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    torch.manual_seed(0)
    return request.param


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def loss(out):
    """A loss that bends in the means, in the deviations, and across both."""
    return (out.y.square().sum(-1).sqrt() * (1 + out.log_std.exp().sum(-1, keepdim=True))).sum() + (out.y**3).sum()


def gradients(value, params, **options):
    """Return the gradient of a number in parameters, by autograd."""
    found = torch.autograd.grad(value, list(params.values()), materialize_grads=True, **options)
    return dict(zip(params, found, strict=True))


def hessian_product(function, params, v):
    """Return the product of a function's Hessian with a direction, by differentiating twice."""
    leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
    first = gradients(function(leaves), leaves, create_graph=True)
    return gradients(sum((first[k] * v[k]).sum() for k in v), leaves)


def close(a, b):
    assert a.keys() == b.keys()
    for k in a:
        torch.testing.assert_close(a[k], b[k], rtol=1e-9, atol=1e-9)


@pytest.fixture
def setting(shape, device):
    observation = torch.randn(TASKS, N, shape.sizes[0], dtype=torch.float64, device=device)
    params = params_of(shape, device)
    return shape, params, observation, derivatives.run(shape, params, observation)


def test_a_run_is_the_network(setting):
    shape, params, observation, p = setting
    for a, b in zip(p.out, policies.outputs(shape, params, observation), strict=True):
        torch.testing.assert_close(a, b)


def test_reverse_mode(setting):
    shape, params, observation, p = setting
    u = Outputs(*(torch.randn_like(x) for x in p.out))
    leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
    out = policies.outputs(shape, leaves, observation)
    close(derivatives.cotangent(p, u), gradients(sum((a * b).sum() for a, b in zip(u, out, strict=True)), leaves))


def test_forward_mode_is_the_transpose_of_reverse_mode(setting):
    shape, params, observation, p = setting
    v = params_of(shape, observation.device)
    change, moved = derivatives.tangent(p, v)
    for _ in range(3):
        u = Outputs(*(torch.randn_like(x) for x in p.out))
        back = derivatives.cotangent(p, u)
        forwards = sum(float((a * b).sum()) for a, b in zip(u, change, strict=True))
        assert forwards == pytest.approx(sum(float((back[k] * v[k]).sum()) for k in v), rel=1e-9)
    step = 1e-6
    assert (moved[0] is None) == (shape.latent == 0)
    for i, m in enumerate(moved):
        if m is None:
            continue
        up, down = ({k: params[k] + sign * step * v[k] for k in v} for sign in (1, -1))
        up, down = (derivatives.run(shape, x, observation).inputs[i][..., -m.shape[-1] :] for x in (up, down))
        torch.testing.assert_close(m, (up - down) / (2 * step), rtol=1e-6, atol=1e-6)


def test_gradient_and_hessian(setting):
    shape, params, observation, p = setting

    def whole(x):
        return loss(policies.outputs(shape, x, observation))

    leaves = {k: x.clone().requires_grad_() for k, x in params.items()}
    expected = gradients(whole(leaves), leaves)
    found, hessian = derivatives.gradient_and_hessian(shape, p, loss)
    close(found, expected)
    close(derivatives.gradient(shape, params, observation, loss), expected)
    for _ in range(2):  # also the second product, which the first must not have spoilt
        v = params_of(shape, observation.device)
        close(hessian(v), hessian_product(whole, params, v))


def test_a_loss_without_bend_has_a_hessian_of_the_network_alone(setting):
    """What is linear in the outputs has no second derivative in them."""
    shape, params, observation, p = setting
    u = torch.randn_like(p.out.y)
    _, hessian = derivatives.gradient_and_hessian(shape, p, lambda out: (u * out.y).sum())
    v = params_of(shape, observation.device)
    close(hessian(v), hessian_product(lambda x: (u * policies.outputs(shape, x, observation).y).sum(), params, v))


def test_shared_parameters_need_no_copies(setting):
    shape, _, observation, _ = setting
    shared = policies.for_tasks(
        {k: x if k in policies.OWN else x[0] for k, x in params_of(shape, observation.device).items()}, TASKS
    )
    copies = {k: x.contiguous() for k, x in shared.items()}
    p, q = (derivatives.run(shape, x, observation) for x in (shared, copies))
    (_, one), (_, other) = (derivatives.gradient_and_hessian(shape, x, loss) for x in (p, q))
    close(one(shared), other(copies))
