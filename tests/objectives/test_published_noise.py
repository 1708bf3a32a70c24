"""The numbers of SEDD's, MDLM's and Duo's own code on small random networks: losses and sampler steps.

`tests/data_files/objective/token_noise.safetensors` holds a few positions of each.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unmask.decoding.scores import analytic, clean, euler
from unmask.noise.schedule import Geometric, LogLinear
from unmask.noise.tokens import Masking, TokenNoise, resting

ALL = load_file(Path(__file__).parents[1] / "data_files" / "objective" / "token_noise.safetensors")
GRAPHS = {  # published name -> the noise, and the step of its sampler
    "absorb": (Masking.over(257, 256, LogLinear(1e-3)), 0.02),
    "uniform": (TokenNoise(resting(256, []), Geometric(1e-4, 20.0)), 0.02),
}
every_graph = pytest.mark.parametrize("graph", GRAPHS)


def published(case: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(case + "."): value for name, value in ALL.items() if name.startswith(case + ".")}


def flat(case: dict[str, torch.Tensor], *names: str, over: str):
    """Arrays (B, L, ...) as (N, ...), and times (B,) as (N,)."""
    length = case[over].shape[1]
    for name in names:
        value = case[name]
        yield value.flatten(0, 1) if value.dim() > 1 and value.shape[1] == length else value.repeat_interleave(length)


@every_graph
def test_sedds_score_entropy(graph):
    noise, case = GRAPHS[graph][0], published(f"sedd_{graph}")
    log_score, x0, xt, t = flat(case, "log_score", "x0", "xt", "t", over="x0")
    found = noise.score_entropy(log_score, x0, xt, t) / noise.speed(t)
    expected = case["score_entropy"].flatten()
    assert (expected != 0).any()
    late = -noise.schedule.alpha(t.double()).log() > 1
    torch.testing.assert_close(found[late], expected[late], rtol=1e-5, atol=2e-6)
    # for a small sigma the published code takes 1 - 256 / (256 + sigma) in float32; in float64 it agrees to 2e-7
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-6)


@every_graph
def test_sedds_sampler_steps(graph):
    (noise, step), case = GRAPHS[graph], published(f"sedd_{graph}")
    log_score, x, t = flat(case, "log_score", "xt", "t", over="xt")
    s, score = t.double() - step, log_score.double().exp()
    for law, name in ((analytic, "analytic_probs"), (euler, "euler_probs")):
        found = law(noise, score, x, t.double(), s)
        torch.testing.assert_close(found, case[name].flatten(0, 1).double(), rtol=1e-4, atol=2e-6)


@every_graph
def test_sedds_last_step(graph):
    noise, case = GRAPHS[graph][0], published(f"sedd_{graph}")
    log_score, x = flat(case, "denoiser_log_score", "xt", over="xt")
    t = case["denoiser_t"].double().repeat_interleave(len(x) // 3, 0)[:, 0]
    found = clean(noise, log_score.exp(), x, t)[:, :256]
    torch.testing.assert_close(found, case["denoiser_probs"].flatten(0, 1), rtol=1e-4, atol=2e-6)


def test_mdlms_loss():
    noise, case = Masking.over(257, 256, LogLinear(1e-3)), published("mdlm")
    mu, x0, xt, t = flat(case, "log_p_theta", "x0", "xt", "t", over="x0")
    expected = case["nlls"].flatten() * case["attention_mask"].flatten()
    for process in (noise, TokenNoise(noise.pi, noise.schedule)):
        found = process.nelbo(mu.masked_fill(mu < -1e5, -torch.inf), x0, xt, t) * case["attention_mask"].flatten()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


def test_mdlms_sampler_steps():
    noise, case = TokenNoise(Masking.over(257, 256).pi, LogLinear(1e-3)), published("mdlm")
    mu, x, t = flat(case, "log_p_theta", "xt", "t", over="xt")
    masked = x == 256
    mu, x, t = mu[masked].masked_fill(mu[masked] < -1e5, -torch.inf), x[masked], t[masked].double()
    found = noise.arrival(x, t, t - 0.05).to(mu) * noise.marginal(mu.exp(), t - 0.05)
    torch.testing.assert_close(found, case["ddpm_probs"].flatten(0, 1)[masked], rtol=1e-4, atol=1e-6)
    tweedie = analytic(noise, noise.log_score(x, mu, t).exp(), x, t, t - 0.05)
    torch.testing.assert_close(tweedie, case["analytic_probs"].flatten(0, 1)[masked], rtol=1e-3, atol=1e-5)


def test_duos_uniform_loss():
    noise, case = TokenNoise(resting(256, []), LogLinear(1e-3)), published("udlm")
    mu, x0, xt, t = flat(case, "log_x_theta", "x0", "xt", "t", over="x0")
    torch.testing.assert_close(noise.nelbo(mu, x0, xt, t), case["nll_per_token"].flatten(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(noise.schedule.alpha(case["t"]), case["alpha_t"][:, 0])


@pytest.mark.parametrize(
    ("name", "of"), [("posterior_model", "log_x_theta"), ("posterior_true_x0", None)], ids=["model", "true"]
)
def test_duos_uniform_posterior(name, of):
    noise, case = TokenNoise(resting(256, []), LogLinear(1e-3)), published("udlm")
    x0, x, t, s = flat(case, "x0", "xt", "t", "s", over="x0")
    probs = torch.eye(256)[x0] if of is None else case[of].flatten(0, 1).exp()
    law = noise.arrival(x, t.double(), s.double()) * noise.marginal(probs.double(), s.double())
    expected = case[name].flatten(0, 1).double()
    torch.testing.assert_close(law / law.sum(-1, keepdim=True), expected, rtol=1e-4, atol=1e-7)


def test_duos_masked_loss_and_posterior():
    noise, case = Masking.over(257, 256, LogLinear(1e-3)), published("duo_mdlm")
    x0, x, t, s = flat(case, "x0", "xt", "t", "s", over="x0")
    masked = x == 256
    posterior = case["posterior"].flatten(0, 1)[masked].double()
    mu = posterior.index_fill(-1, torch.tensor(256), 0).log().log_softmax(-1)  # it is p_theta, with the mask on top
    stays = (1 - noise.schedule.alpha(s.double())) / (1 - noise.schedule.alpha(t.double()))
    torch.testing.assert_close(posterior[:, 256], stays[masked], rtol=1e-4, atol=0)
    found = noise.nelbo(mu, x0[masked], x[masked], t[masked].double())
    torch.testing.assert_close(found, case["nll_per_token"].flatten()[masked].double(), rtol=1e-4, atol=0)
