from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="With all embeddings equal a picture guesses among N K names and a name among N pictures, so the two directions cost log(N K) and log N. The loss is the mean of the two.")
def test_all_equal(env):
    import math
    torch, one_to_k_loss = (env['torch'], env['one_to_k_loss'])
    found = one_to_k_loss(torch.ones(3, 4), torch.ones(3, 2, 4), 0.1)
    assert abs(float(found) - (math.log(6) + math.log(3)) / 2) < 1e-05

