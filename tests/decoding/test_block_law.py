"""Block after block, each by an exact rule, draws from the model's own distribution: chi-square against the oracle."""

import pytest
from stand_ins import Oracle
from test_exact import LENGTH, TOKENS, masking, p_value, texts

from unmask.decoding.settings import Decoding

RULES = {
    "first hitting": Decoding(rule="first_hitting", temperature=1.0, block=2),
    "first hitting, one by one": Decoding(rule="first_hitting", temperature=1.0, block=1),
    "ancestral": Decoding(rule="ancestral", temperature=1.0, block=2, steps=120),
}


@pytest.mark.parametrize("settings", RULES.values(), ids=RULES)
def test_blocks_have_the_joint_law(settings: Decoding) -> None:
    oracle = Oracle(masking(), TOKENS, LENGTH)
    oracle.network.time = None  # under masking the oracle's answer does not depend on t
    assert p_value(texts(oracle, masking(), settings, [None] * LENGTH, 4000), oracle, oracle.joint) > 1e-3
