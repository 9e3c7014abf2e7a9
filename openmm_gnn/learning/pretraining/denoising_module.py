"""The network in its pretraining by denoising: loss, moving average, validation.

Noise of several scales: each molecule draws one, which the network is not told. The head predicts displacements in
units of `EncoderSpec.noise_scale`, whatever was drawn; the loss counts what is left of them in units of the scale that
was drawn. So nothing learned is 1.0 at every scale, and large noise does not outweigh small noise by its square.

Source: Zaidi et al., "Pre-training via denoising for molecular property prediction", ICLR 2023, arXiv 2206.00133; the
weight of each scale: Song and Ermon, "Generative modeling by estimating gradients of the data distribution", NeurIPS
2019, arXiv 1907.05600, eqs. (5) and (6), with a displacement of -sigma^2 times their score.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from openmm_gnn.base.errors import NonFiniteError
from openmm_gnn.base.specs.encoder import EncoderSpec
from openmm_gnn.learning.pretraining.denoising_data import DenoisingData
from openmm_gnn.learning.pretraining.denoising_meter import ERROR, DenoisingErrorMeter
from openmm_gnn.learning.pretraining.denoising_settings import DenoisingSettings, Precision
from openmm_gnn.learning.pretraining.noisy_batches import NoisyBatch
from openmm_gnn.learning.pretraining.noisy_frames import noise_scale_of
from openmm_gnn.learning.trainer import ResumableModule, identity_of
from openmm_gnn.networks.encoders.encoder import Encoder


class Denoising(ResumableModule):
    """An encoder with the loss mean |predicted - noise|^2, both in units of the scale of the noise.

    `data_identity` is what tells the data apart from others when a killed training goes on, such as their sha256.
    """

    def __init__(self, encoder: Encoder, settings: DenoisingSettings, data_identity: str = "") -> None:
        super().__init__({"another encoder": identity_of(encoder.spec), "other data": data_identity})
        self.settings = settings
        self.encoder = encoder
        self.scales = scales_of(encoder.spec, settings)
        self.average = AveragedModel(encoder).requires_grad_(False)
        if settings.precision is not Precision.FLOAT32:
            self.encoder.network.use_compiled(False)  # that form computes in float32
        self.meter = DenoisingErrorMeter()
        # Neither belongs into checkpoints: the start is given anew with the settings, what is kept follows from it.
        self._start = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}
        self._mixed = [copy.deepcopy(encoder).requires_grad_(False).eval()]

    def _average(self, averages: Any, weights: Any, count: Tensor | int) -> None:
        """The moving average; shorter in the beginning, so that it forgets the random weights it began with."""
        decay = min(self.settings.average_decay, (1 + float(count)) / (10 + float(count)))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    @property
    def best_weights(self) -> Encoder:
        """The encoder with the averaged weights; with a share of the start's, as the last validation met it."""
        encoder = self._mixed[0] if self.settings.start_share else self.average.module
        assert isinstance(encoder, Encoder)
        return encoder

    def _mix(self) -> None:
        """Put the share of the start's weights to the averaged ones."""
        mixed, averages = self._mixed[0].to(self.device), dict(self.average.module.named_parameters())
        with torch.no_grad():
            for name, weight in mixed.named_parameters():
                weight.copy_(torch.lerp(averages[name], self._start[name].to(weight), self.settings.start_share))
        mixed.eval()  # its tables are those of other weights

    @property
    def data(self) -> DenoisingData:
        """What it is trained on."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, DenoisingData)
        return data

    def forward(self, encoder: Encoder, batch: NoisyBatch, scales: Tensor | float) -> Tensor:
        """(N, 3) the noise that the encoder sees, in units of its scale, after noise of these scales was added."""
        molecules = batch.molecules
        positions = molecules.positions + scales * batch.noise
        return encoder.predicted_noise(molecules.atomic_numbers, positions, molecules.batch).float() / scales

    def training_step(self, batch: NoisyBatch, _: int) -> Tensor:
        residual = self(self.encoder, batch, batch.scales) - batch.noise
        # Gradients are averaged over the processes, and so is the loss: their weighted sums shall be summed.
        loss = residual.square().sum() * (batch.weight * self.trainer.world_size)
        if not bool(torch.isfinite(loss)):
            raise NonFiniteError(self._not_finite(residual, batch))
        self.log("train_error", loss.detach(), prog_bar=True, batch_size=1, logger=False, sync_dist=self._together)
        return loss

    def _not_finite(self, residual: Tensor, batch: NoisyBatch) -> str:
        """Which molecules' error it is."""
        broken = batch.molecules.batch[~torch.isfinite(residual).all(dim=1)].unique().tolist()
        names = [self.data.training.name(batch.frames[k]) for k in broken or range(len(batch.frames))]
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        return (
            f"the error of step {self.global_step + 1} is not a finite number, that of {'; '.join(names[:5])}{more}: "
            f"lower the learning rate, now {self.settings.learning_rate:g}, or look at these molecules"
        )

    @property
    def _together(self) -> bool:
        return self.trainer.world_size > 1

    def on_train_batch_end(self, *_: Any) -> None:
        # Weights alone, not `update_parameters`: buffers are constants, or tables that each makes of its own weights.
        averages: list[Tensor] = list(self.average.module.parameters())
        weights: list[Tensor] = list(self.encoder.parameters())
        with torch.no_grad():
            if self.average.n_averaged == 0:
                torch._foreach_copy_(averages, weights)
            else:
                self._average(averages, weights, self.average.n_averaged)
            self.average.n_averaged += 1

    def on_validation_epoch_start(self) -> None:
        if self.settings.start_share:
            self._mix()
        self.meter = DenoisingErrorMeter((len(self.scales), len(self.data.set_names)))

    def validation_step(self, batch: NoisyBatch, _: int) -> None:
        sets = self.data.set_of[batch.frames].to(batch.molecules.batch.device).index_select(0, batch.molecules.batch)
        with torch.autocast(self.device.type, enabled=False):  # as the weights will be used
            for k, scale in enumerate(self.scales):
                self.meter.add(self(self.best_weights, batch, scale), batch.noise, k, sets)

    def on_validation_epoch_end(self) -> None:
        meter, sums = self.meter, self.meter.sums.to(self.device)
        meter.sums = self.trainer.strategy.reduce(sums, reduce_op="sum").cpu()
        for name, error in self.data.named_errors(meter, self.scales).items():
            self.log(name, error, prog_bar=name == ERROR, logger=False, sync_dist=self._together)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.encoder.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, amsgrad=True
        )
        return self.scheduled(optimizer, settings.warmup_steps, settings.num_steps)


def scales_of(spec: EncoderSpec, settings: DenoisingSettings) -> tuple[float, ...]:
    """Noise scales of validations: the spec's, by which weights are chosen, and then the others trained on."""
    unit = noise_scale_of(spec)
    return (unit, *(scale for scale in settings.noise_scales if scale != unit))
