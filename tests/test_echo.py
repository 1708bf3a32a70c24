"""What a network is told of its last word."""

import torch

from unmask.echo import SoftMask
from unmask.models.config import ModelConfig
from unmask.models.transformer import Transformer


def test_soft_masks_of_certain_beliefs_have_gradients():
    """Where a probability is zero, -p log p has a value but its derivative has none: training went to nan there."""
    network = Transformer(ModelConfig(vocab=4, width=8, layers=1, heads=2, feedback="soft"))
    torch.nn.init.ones_(network.feedback.scale)
    scores = torch.tensor([[0.0, -200.0, 1.0, -torch.inf], [900.0, 0.0, 0.0, -torch.inf]], requires_grad=True)
    mu = scores.log_softmax(-1)
    told = SoftMask(mask_id=3)(network, mu, torch.full((2,), 3), torch.ones(2))
    told.sum().backward()
    assert bool(scores.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in network.feedback.parameters())
    entropy = torch.special.entr(mu.detach().exp()).sum(-1)
    share = network.feedback.share(entropy)[:, None]
    table = network.embed.weight
    mean = (mu.exp().topk(4).values[..., None] * table[mu.topk(4).indices]).sum(1)
    torch.testing.assert_close(told, share * (mean - table[3]))
