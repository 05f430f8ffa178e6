"""Encoders and heads: shapes, sizes, and that they can learn at all."""

from __future__ import annotations

import copy

import pytest
import torch

from cl_teach.models import MLP, ConvEncoder, PredictionHead, ProjectionHead, cifar_resnet18


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8), (3, 33)])
def test_encoder_maps_images_to_features(channels, size):
    encoder = ConvEncoder(channels, size, width=8)
    assert encoder(torch.rand(5, channels, size, size)).shape == (5, encoder.feature_dim)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
def test_encoder_with_its_head_stays_below_a_few_hundred_thousand_parameters(channels, size):
    encoder = ConvEncoder(channels, size)
    model = torch.nn.ModuleList([encoder, ProjectionHead(encoder.feature_dim)])
    assert sum(p.numel() for p in model.parameters()) < 200_000


def test_every_parameter_of_encoder_and_heads_gets_a_gradient():
    model = torch.nn.Sequential(ConvEncoder(width=8), ProjectionHead(256), PredictionHead(64))
    model(torch.rand(8, 1, 28, 28)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_encoder_uses_every_part_of_the_image():
    images = torch.rand(1, 1, 28, 28, requires_grad=True)
    ConvEncoder().eval()(images).square().sum().backward()
    assert (images.grad != 0).float().mean() > 0.95


def test_encoder_keeps_the_order_of_the_batch_in_evaluation():
    encoder, images = ConvEncoder(width=8).eval(), torch.rand(6, 1, 28, 28)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    torch.testing.assert_close(encoder(images)[order], encoder(images[order]))
    torch.testing.assert_close(encoder(images)[:1], encoder(images[:1]))


def test_memory_layout_of_the_weights_does_not_change_the_features():
    encoder, images = ConvEncoder(3, 32, width=8).eval(), torch.rand(4, 3, 32, 32)
    plain = copy.deepcopy(encoder).to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(encoder(images), plain(images), rtol=1e-4, atol=1e-5)


def test_encoder_can_be_stored_and_loaded():
    first, second = ConvEncoder(width=8).eval(), ConvEncoder(width=8).eval()
    images = torch.rand(4, 1, 28, 28)
    assert not torch.allclose(first(images), second(images))
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(images), second(images))


def test_encoder_fits_random_labels_in_a_few_steps():
    torch.manual_seed(0)
    images, labels = torch.rand(32, 1, 28, 28), torch.arange(32) % 4
    model = torch.nn.Sequential(ConvEncoder(width=8), torch.nn.Linear(256, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(2, 3, 28, 28), ValueError, r"expected shape \(n, 1, 28, 28\), got \(2, 3, 28, 28\)"),
        (torch.rand(2, 1, 32, 32), ValueError, r"in_channels=1 and image_size=28"),
        (torch.rand(1, 28, 28), ValueError, r"got \(1, 28, 28\)"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), TypeError, "images: expected a floating dtype"),
    ],
)
def test_encoder_says_what_images_it_needs(images, error, message):
    with pytest.raises(error, match=message):
        ConvEncoder(width=8)(images)


@pytest.mark.parametrize("arguments", [{"in_channels": 0}, {"image_size": 4}, {"width": 0}])
def test_encoder_refuses_impossible_sizes(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ConvEncoder(**arguments)


def test_mlp_has_the_layers_it_was_asked_for():
    mlp = MLP([5, 7, 3])
    assert [type(layer).__name__ for layer in mlp.layers] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [type(layer).__name__ for layer in MLP([5, 7, 3], norm="none").layers] == [
        "Linear",
        "ReLU",
        "Linear",
    ]
    assert mlp(torch.rand(4, 5)).shape == (4, 3)


def test_mlp_of_two_sizes_is_linear():
    mlp, x, y = MLP([5, 3]), torch.rand(4, 5), torch.rand(4, 5)
    torch.testing.assert_close(mlp(x + y), mlp(x) + mlp(y) - mlp(torch.zeros(4, 5)))


def test_plain_mlp_equals_its_formula():
    mlp, x = MLP([5, 7, 3], norm="none"), torch.rand(4, 5)
    first, last = mlp.layers[0], mlp.layers[2]
    expected = (x @ first.weight.T + first.bias).clamp(min=0) @ last.weight.T + last.bias
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize("sizes", [[], [3], [3, 0, 2]])
def test_mlp_refuses_impossible_sizes(sizes):
    with pytest.raises(ValueError, match="sizes: expected at least two positive widths"):
        MLP(sizes)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projection_head_has_the_given_number_of_linear_layers(layers):
    head = ProjectionHead(20, 6, hidden=10, layers=layers)
    assert sum(isinstance(module, torch.nn.Linear) for module in head.modules()) == layers
    assert head(torch.rand(4, 20)).shape == (4, 6)


def test_prediction_head_is_a_bottleneck_by_default():
    head = PredictionHead(16)
    assert head.mlp.sizes == (16, 8, 16)
    assert PredictionHead(16, hidden=40).mlp.sizes == (16, 40, 16)


def test_heads_say_what_input_they_need():
    with pytest.raises(ValueError, match=r"features: expected shape \(n, 20\), got \(4, 21\)"):
        ProjectionHead(20)(torch.rand(4, 21))
    with pytest.raises(ValueError, match=r"embeddings: expected shape \(n, 16\), got \(16,\)"):
        PredictionHead(16)(torch.rand(16))
    with pytest.raises(ValueError, match=r"x: expected shape \(n, 5\)"):
        MLP([5, 3])(torch.rand(4, 6))
    with pytest.raises(ValueError, match="layers: expected a whole number of at least 1, got 0"):
        ProjectionHead(20, layers=0)


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
def test_without_batch_normalization_every_row_is_embedded_by_itself(norm):
    network = torch.nn.Sequential(ConvEncoder(width=8, norm=norm), ProjectionHead(256, 8, norm=norm))
    images = torch.rand(6, 1, 28, 28)
    torch.testing.assert_close(network(images), torch.cat([network(images[:2]), network(images[2:])]))


def test_a_group_is_never_a_single_number_which_would_always_be_zero():
    for width in (2, 3, 5, 8, 64, 128, 256):
        hidden = MLP([4, width, 3], norm="group").layers[1]
        assert isinstance(hidden, torch.nn.GroupNorm) and width // hidden.num_groups >= 2
    assert MLP([4, 256, 3], norm="group").layers[1].num_groups == 32
    with pytest.raises(ValueError, match="norm: 'group' needs hidden layers of at least 2 units, got 1"):
        MLP([4, 1, 3], norm="group")


@pytest.mark.parametrize("make", [ConvEncoder, lambda norm: MLP([4, 4, 3], norm=norm)])
def test_unknown_normalization_is_answered_with_the_known_ones(make):
    with pytest.raises(ValueError, match="norm: expected one of 'batch', 'group', 'layer', 'none', got 'instance'"):
        make(norm="instance")


class TestCifarResnet18:
    def test_keeps_the_resolution_that_small_pictures_need(self):
        pytest.importorskip("torchvision")
        network = cifar_resnet18().eval()
        seen = []
        network.layer1.register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
        with torch.no_grad():
            features = network(torch.rand(2, 3, 32, 32))
        assert features.shape == (2, network.feature_dim) == (2, 512)
        assert seen == [(2, 64, 32, 32)]  # torchvision's own stem would leave 8x8
        assert sum(p.numel() for p in network.parameters()) == 11_168_832  # 11.2 million, as the papers say

    def test_takes_gray_images_and_group_normalization(self):
        pytest.importorskip("torchvision")
        network = cifar_resnet18(1, norm="group")
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
        with torch.no_grad():
            assert network(torch.rand(2, 1, 28, 28)).shape == (2, 512)

    def test_without_torchvision_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
        with pytest.raises(ImportError, match="pip install torchvision"):
            cifar_resnet18()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_encoder_gives_the_same_features_on_cpu_and_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # ten bits
    encoder, images = ConvEncoder().eval(), torch.rand(4, 1, 28, 28)
    on_cpu = encoder(images)
    torch.testing.assert_close(encoder.cuda()(images.cuda()).cpu(), on_cpu, rtol=1e-3, atol=1e-3)
