from otter.test_files import test_case

OK_FORMAT = False

name = "q1"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="The text a b a b a b has 2 different of 5 pairs, 2 of 4 triples and 2 of 3 quadruples. Multiply the shares of different ones; the last n-gram of the text counts, too.")
def test_by_hand(env):
    assert abs(env['diversity'](['a', 'b'] * 3) - 2 / 5 * 2 / 4 * 2 / 3) < 1e-06

