from otter.test_files import test_case

OK_FORMAT = False

name = "q4"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="A partner is of the same person and of another trial. That two windows have the same trial number says nothing unless the person is the same.")
def test_two_persons(env):
    torch, partners = (env['torch'], env['partners'])
    person, trial = (torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 0, 1, 0, 1, 1]))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        found = partners(person, trial, generator)
        assert found.shape == (6,)
        assert torch.equal(person[found], person) and (trial[found] != trial).all()

