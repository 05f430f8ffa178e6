from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="With equal logits a positive stands against two negatives here, which costs log 3. The anchor's own class is neither positive nor negative.")
def test_equal_logits(env):
    import math
    torch, partner_loss = (env['torch'], env['partner_loss'])
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    found = partner_loss(torch.zeros(6, 6), labels, torch.tensor([1, 1, 2, 2, 0, 0]))
    assert found.shape == ()
    assert abs(found.item() - math.log(3)) < 1e-05

