"""The server's own OpenAPI, and what a fuzzer makes of it: data that fits, and data that does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error


def attack(server, mode, cases):
    schema = schemathesis.openapi.from_dict(server.client.get("/openapi.json").json())

    @settings(max_examples=cases, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=schema.as_strategy(generation_mode=mode))
    def fuzz(case):
        if isinstance(case.body, dict):
            case.body.pop("model", None)  # else nothing but its name is looked at
        case.call_and_validate(base_url=server.address, checks=[not_a_server_error])

    fuzz()
    server.settles()
    assert server.healthy


MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.mark.parametrize("mode", MODES)
def test_no_case_is_a_server_error(server, mode):
    attack(server, mode, 75)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", MODES)
def test_none_of_many_cases_is_a_server_error(server, mode):
    attack(server, mode, 1000)
