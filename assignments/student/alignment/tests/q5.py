from otter.test_files import test_case

OK_FORMAT = False

name = "q5"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="At divergence 1 the first run is half way between 60 and 80, the second one at 65. Compare there, not at the last checkpoints.")
def test_half_way(env):
    lead = env['lead']
    first, second = ([(0.0, 50.0), (0.5, 60.0), (1.5, 80.0)], [(0.0, 50.0), (1.0, 65.0), (4.0, 95.0)])
    assert abs(lead(first, second, 1.0) - 5) < 1e-06
    assert abs(lead(second, first, 0.0)) < 1e-06

