"""What encoders of every kind share."""

import torch

from d2nwg.encoders.base import fingerprint


def test_a_fingerprint_is_the_same_with_any_number_of_threads_and_another_for_other_weights():
    torch.manual_seed(0)
    layers = torch.nn.Linear(1_500, 1_500), torch.nn.Linear(3, 2).double(), torch.nn.PReLU().half()
    network = torch.nn.Sequential(*layers)
    threads, found = torch.get_num_threads(), set()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.add(fingerprint(network))
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1
    with torch.no_grad():
        network[0].weight[7, 7] += 1e-6
    assert fingerprint(network) not in found
    assert fingerprint(torch.nn.Identity()) == fingerprint(torch.nn.Flatten())
