from otter.test_files import test_case

OK_FORMAT = False

name = "q3"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="Each pair differs by about 2, though the pairs differ by 30 among one another. Subtract seed by seed before you take a deviation, and divide that by the root of n.")
def test_paired(env):
    verdict_of = env['verdict_of']
    baseline, method = ([40.0, 55.0, 70.0, 48.0], [42.0, 57.5, 71.5, 50.0])
    assert verdict_of(baseline, method, 'higher', 0.5, 3.18) == 'holds'
    assert verdict_of(baseline, method, 'lower', 0.5, 3.18) == 'opposite'
    assert verdict_of([1.0, 2.0, 3.0], [4.0, 1.0, 3.5], 'higher', 0.5, 4.3) == 'undecided'

