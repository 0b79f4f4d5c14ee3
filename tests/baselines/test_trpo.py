"""Conjugate gradients, the step and the line search, on quadratics whose answer is known."""

import pytest

torch = pytest.importorskip("torch")
from kshot_baselines.trpo import conjugate_gradient, line_search, natural_step  # noqa: E402


@pytest.fixture
def matrix():
    torch.manual_seed(0)
    a = torch.randn(8, 8, dtype=torch.float64)
    return a @ a.T + torch.eye(8, dtype=torch.float64)


def test_conjugate_gradients_solve_in_as_many_steps_as_there_are_numbers(matrix):
    b = torch.randn(8, dtype=torch.float64)
    x, image = conjugate_gradient(lambda v: matrix @ v, b, iterations=8)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b))
    torch.testing.assert_close(image, b)


def test_stopped_early_it_is_the_best_of_its_krylov_space_and_its_image_is_right(matrix):
    b = torch.randn(8, dtype=torch.float64)
    x, image = conjugate_gradient(lambda v: matrix @ v, b, iterations=3)
    torch.testing.assert_close(image, matrix @ x)
    space = torch.stack([b, matrix @ b, matrix @ matrix @ b], 1)
    w = torch.linalg.solve(space.T @ matrix @ space, space.T @ b)
    torch.testing.assert_close(x, space @ w)


def test_it_stays_where_it_is_solved(matrix):
    zero = torch.zeros(8, dtype=torch.float64)
    torch.testing.assert_close(conjugate_gradient(lambda v: matrix @ v, zero)[0], zero)
    b = torch.randn(8, dtype=torch.float64)
    x, _ = conjugate_gradient(lambda v: 2 * v, b, iterations=10)  # solved after one
    torch.testing.assert_close(x, b / 2)


def test_the_step_goes_along_the_natural_gradient_as_far_as_the_kl_allows(matrix):
    gradient = torch.randn(8, dtype=torch.float64)
    step = natural_step(lambda v: matrix @ v, gradient, max_kl=0.01, iterations=8, damping=0.1)
    damped = matrix + 0.1 * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(step @ damped @ step / 2, torch.tensor(0.01, dtype=torch.float64), rtol=1e-4, atol=0)
    natural = torch.linalg.solve(damped, gradient)
    torch.testing.assert_close(step / step.norm(), natural / natural.norm())


def bowl(kl_per_square):
    """The loss |θ|² and a KL that grows with the distance from (1, 1)."""

    def evaluate(theta):
        return theta.square().sum(), kl_per_square * (theta - 1).square().sum()

    return evaluate


ONE = torch.ones(2, dtype=torch.float64)


def test_a_step_that_improves_within_the_kl_is_taken_whole():
    found = line_search(bowl(1.0), ONE, 0.1 * ONE, before=2.0, max_kl=0.03)
    torch.testing.assert_close(found.theta, 0.9 * ONE)
    assert (found.tries, found.accepted) == (1, True)
    assert (found.loss, found.kl) == pytest.approx((1.62, 0.02))


def test_a_step_that_violates_the_kl_is_shortened_until_it_does_not():
    found = line_search(bowl(1.0), ONE, 0.5 * ONE, before=2.0, max_kl=0.1)
    size = 0.5 * 0.8**4  # 2 · 0.205² = 0.084 ≤ 0.1 < 2 · 0.256² = 0.131
    torch.testing.assert_close(found.theta, (1 - size) * ONE)
    assert found.tries == 5
    assert found.kl <= 0.1


def test_a_step_that_does_not_improve_is_refused():
    found = line_search(bowl(0.0), ONE, -0.5 * ONE, before=2.0, max_kl=1.0)
    assert (found.theta is ONE, found.accepted, found.kl, found.loss, found.tries) == (True, False, 0.0, 2.0, 15)
    overshoot = line_search(bowl(0.0), ONE, 3.0 * ONE, before=2.0, max_kl=1.0)  # lands at −2 first
    assert overshoot.accepted
    assert overshoot.loss < 2.0
    assert overshoot.tries == 3  # 3, 2.4 and 1.92: the first that is nearer to 0 than it was


@pytest.mark.parametrize("broken", [(float("nan"), 0.0), (0.0, float("nan")), (float("-inf"), float("inf"))])
def test_numbers_that_are_none_are_refused(broken):
    found = line_search(lambda theta: tuple(map(torch.tensor, broken)), ONE, 0.1 * ONE, before=2.0, max_kl=0.1)
    assert not found.accepted
    torch.testing.assert_close(found.theta, ONE)
