"""One thread for every test: the machine is small and the results must not depend on how work is split."""

import torch

torch.set_num_threads(1)
