from otter.test_files import test_case

OK_FORMAT = False

name = "q2"
points = 2

@test_case(points=1, hidden=False, 
    failure_message="With momentum 0.9 a weight moves a tenth of the way to the student's. Change the teacher's tensors themselves, not the list, and leave the student alone.")
def test_tenth(env):
    torch, update_teacher = (env['torch'], env['update_teacher'])
    teacher, student = ([torch.zeros(2)], [torch.tensor([1.0, -2.0])])
    kept = teacher[0]
    update_teacher(teacher, student, 0.9)
    assert torch.allclose(kept, torch.tensor([0.1, -0.2])), 'the tensor itself has to change, not the list'
    assert torch.equal(student[0], torch.tensor([1.0, -2.0]))

