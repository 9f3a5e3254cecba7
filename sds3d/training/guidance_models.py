"""Who learns beside the scenes of a run: nobody, or a critic, with what its objective asks for more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from configs.registry import objective_name
from configs.run import RunConfig
from guidance.conditioning.conditions import ViewConditions
from guidance.conditioning.perp_neg import PerpNeg
from guidance.conditioning.prompt import Prompt
from guidance.critics.discriminator import DiscriminatorCritic
from guidance.critics.lora import Critic, LoRADenoiser, strip_prefix
from guidance.objectives.variational.disback import BacktrackedPrior
from guidance.priors.base import Condition, Denoiser, ImagePromptPrior, Prior, SupportsLoRA
from guidance.priors.diffusers.prior import DiffusersPrior, ImagePromptDiffusersPrior
from guidance.priors.sampling import sample_ddim
from renderers.scene import Scene
from sds3d.training import view_sampling

SAMPLE_SCALE = 2.0
"""Classifier-free guidance of the samples that renders are told from."""
SAMPLE_STEPS = 20
LEAST_SIDE, MOST_SIDE = 64, 8192
"""Of a picture that is wanted, pixels."""
AT_ONCE = 8
"""Samples that are drawn together."""


class GuidanceModels:
    """What a run's objective asks: a `teacher`, and a `critic`, which is the prior where the objective needs none."""

    def __init__(
        self, config: RunConfig, prior: Prior, prompt: Prompt, device: torch.device, rng: torch.Generator
    ) -> None:
        """`rng` draws all their chance.

        Raises:
            ValueError: the objective needs what this run or its prior does not have.
            ImportError: it needs a critic, and peft is not installed.
        """
        check_requirements(config, prior)
        objective = config.objective
        self.prior: Denoiser | BacktrackedPrior = prior
        self.critic: Denoiser = prior
        self._config, self._frozen, self._prompt, self._device, self._rng = config, prior, prompt, device, rng
        self._learner: Critic | DiscriminatorCritic | None = None
        if needs_critic(config) and isinstance(prior, SupportsLoRA):
            self.critic = self._learner = config.critic.build(prior, rng)
        self._kept: list[dict[str, Tensor]] = []
        """What the critic had learnt at each stage of the prior's way."""
        self.ready = not (objective.needs_prior_stages or objective.needs_discriminator)
        """Whether there is nothing (more) to prepare."""
        self._angles = torch.zeros(0, 2)
        """[N,2] azimuth and elevation of the samples."""

    def prepare(self, scenes: Sequence[Scene]) -> None:
        """What has to happen once, before the first step, while the scenes are as they start."""
        if self.ready:
            return
        assert isinstance(self._learner, Critic)
        if self._config.objective.needs_prior_stages:
            self._train_prior_stages(self._learner, scenes)
        if self._config.objective.needs_discriminator:
            self._attach_discriminator(self._learner, *self._samples())
        self.ready = True

    def teacher(self, empty: Condition) -> Denoiser:
        """The prior as it is asked in a step, by way of Perp-Neg where the run wants that; `empty` is no prompt."""
        if not self._config.perp_neg:
            return self.prior
        if isinstance(self.prior, BacktrackedPrior):
            return replace(self.prior, stages=tuple(PerpNeg(stage, empty) for stage in self.prior.stages))
        return PerpNeg(self.prior, empty)

    def update_critic(self, x: Float[Tensor, "B C h w"], posed: Condition, parts: int = 1) -> dict[str, float]:
        """The critic's part of a step, on clean latents of renders, so many parts of them one after another; figures
        worth a log line."""
        return {} if self._learner is None else {"critic_error": self._learner.train_step(x.detach(), posed, parts)}

    def training_state(self) -> dict[str, Tensor]:
        """Returns the tensors that `load_training_state` needs, except the generator's; empty without a critic."""
        tensors: dict[str, Tensor] = {}
        if self._learner is not None:
            tensors |= {f"critic.{name}": value for name, value in self._learner.training_state().items()}
        if isinstance(self._learner, DiscriminatorCritic):
            tensors |= {"samples.x": self._learner.prior_samples, "samples.angles": self._angles}
        for place, weights in enumerate(self._kept):
            tensors |= {f"stages.{place}.{name}": value for name, value in weights.items()}
        return tensors

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state` gave. Raises ValueError if it is of other companions."""
        if self._learner is None:
            return
        learner = self._learner.critic if isinstance(self._learner, DiscriminatorCritic) else self._learner
        if samples := strip_prefix(state, "samples"):
            self._attach_discriminator(learner, samples["x"].to(self._device), samples["angles"])
        if stages := strip_prefix(state, "stages"):
            count = 1 + max(int(name.split(".", 1)[0]) for name in stages)
            self._retrace(learner, [strip_prefix(stages, str(place)) for place in range(count)])
        self.ready = self.ready or bool(samples or stages)
        self._learner.load_training_state(strip_prefix(state, "critic"))

    def _train_prior_stages(self, critic: Critic, scenes: Sequence[Scene]) -> None:
        """The critic learns the first renders; what it was on the way are the stages of the prior's way to them."""
        kept = []
        for _ in range(self._config.critic.num_stages):
            for place in range(self._config.critic.stage_steps):
                x, wanted = self._look(scenes[place % len(scenes)])
                critic.train_step(x, wanted.text_with_camera)
            kept.append(critic.denoiser.lora_state())
        self._retrace(critic, kept)

    def _retrace(self, critic: Critic, kept: list[dict[str, Tensor]]) -> None:
        assert isinstance(self._frozen, SupportsLoRA)
        self._kept = kept
        adapted = LoRADenoiser(self._frozen, critic.config.rank, torch.Generator())
        self.prior = BacktrackedPrior.from_stage_weights(self._frozen, adapted, kept)

    def _attach_discriminator(
        self, critic: Critic, samples: Float[Tensor, "N C h w"], angles: Float[Tensor, "N 2"]
    ) -> None:
        self._angles = angles
        posed = self._prompt.conditions_for(self._frozen, *angles.to(self._device).T).text_with_camera
        self.critic = self._learner = DiscriminatorCritic(critic, samples, posed)

    @torch.no_grad()
    def _look(self, scene: Scene) -> tuple[Float[Tensor, "B C h w"], ViewConditions]:
        """Clean latents of a scene from anywhere, and what they should show."""
        config, prior = self._config, self._frozen
        cameras = view_sampling.step_cameras(config, prior, config.batch_size, self._rng).to(self._device)
        frame = scene.render(
            cameras, view_sampling.step_backgrounds(prior, config.batch_size, self._rng).to(self._device)
        )
        x = prior.encode(frame.rgb.permute(0, 3, 1, 2))
        return x, self._prompt.conditions_for(prior, cameras.azimuth, cameras.elevation)

    @torch.no_grad()
    def _samples(self) -> tuple[Float[Tensor, "N C h w"], Float[Tensor, "N 2"]]:
        """Clean latents that the prior draws for the prompt, and the angles they are seen from."""
        config, prior, size = self._config, self._frozen, self._frozen.image_size
        cameras = view_sampling.step_cameras(config, prior, config.critic.num_prior_samples, self._rng).to(self._device)
        wanted = self._prompt.conditions_for(prior, cameras.azimuth, cameras.elevation)
        shape = prior.encode(torch.zeros(1, 3, size, size, device=self._device)).shape[1:]
        noise = torch.randn(config.critic.num_prior_samples, *shape, generator=self._rng).to(self._device)
        drawn = []
        for rows in torch.arange(config.critic.num_prior_samples, device=self._device).split(AT_ONCE):
            of = wanted.select(rows)
            drawn.append(prior.encode(sample_ddim(prior, noise[rows], of.text, of.uncond, SAMPLE_SCALE, SAMPLE_STEPS)))
        return torch.cat(drawn), torch.stack([cameras.azimuth, cameras.elevation], -1)


def attach_image_prompt(prompt: Prompt, config: RunConfig, prior: Prior) -> Prompt:
    """The prompt with the picture of the run, where there is one.

    Raises:
        ValueError: the prior sees no pictures, or the file is none.
        OSError: the file can not be read.
    """
    if not config.image_prompt:
        return prompt
    if not isinstance(prior, ImagePromptPrior):
        more = (
            ", or give Stable Diffusion an IP-Adapter with --prior-options.ip-adapter"
            if isinstance(prior, DiffusersPrior)
            else ""
        )
        raise ValueError(f"the prior {config.prior} sees no pictures, only text; leave --image-prompt out{more}")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(config.image_prompt) as picture:
            width, height = picture.size
            if min(width, height) < LEAST_SIDE or max(width, height) > MOST_SIDE:
                expected = f"expected {LEAST_SIDE} to {MOST_SIDE} pixels on each side"
                raise ValueError(f"the picture {config.image_prompt} is {width} x {height}; {expected}")
            pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32) / 255)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
        raise ValueError(f"{config.image_prompt} is no picture; expected a PNG or JPEG file") from None
    return replace(prompt, image_embeds=prior.encode_image_prompt(pixels.permute(2, 0, 1)[None]))


def needs_critic(config: RunConfig) -> bool:
    """Whether somebody has to learn beside the scene."""
    objective = config.objective
    return objective.needs_critic or objective.needs_discriminator or objective.needs_prior_stages


_FIXED_GUIDANCE = {
    "guidance_scale": (1,),
    "inversion_guidance_scale": (0, 1),
    "guidance_scale_min": (1,),
    "guidance_scale_max": (1,),
}
"""Values of the fields of an objective that a guidance-distilled prior allows."""


def _refuse_guidance(config: RunConfig, name: str) -> None:
    """Raises ValueError where an objective would guide a prior that has its guidance in its weights."""
    own = f"{config.prior} has its guidance in its weights, and {name}"
    if config.objective.needs_undistilled_prior:
        raise ValueError(f"{own} is made of what a text changes; others go with it, such as sds with scale 1")
    for field, fine in _FIXED_GUIDANCE.items():
        if (scale := vars(config.objective).get(field, 1)) not in fine:
            hint = f"give --objective.{field.replace('_', '-')} 1; what it is told is --prior-options.embedded-guidance"
            raise ValueError(f"{own} guides with {field} {scale}; {hint}")


def check_requirements(config: RunConfig, prior: Prior) -> None:
    """Raises ValueError, in one line, where an objective needs what its run or prior does not have."""
    view_sampling.check_multiview(config, prior)
    if isinstance(prior, ImagePromptDiffusersPrior) and not config.image_prompt:
        raise ValueError(f"{config.prior} as it is opened is shown what is wanted; give --image-prompt FILE")
    objective, name = config.objective, objective_name(config.objective)
    if needs_critic(config) and not isinstance(prior, SupportsLoRA):
        raise ValueError(f"{name} needs a critic; the prior {config.prior} has no network to put one on")
    if isinstance(prior, DiffusersPrior) and prior.guidance_distilled:
        _refuse_guidance(config, name)
    alpha, sigma = (float(level) for level in prior.alpha_sigma(torch.tensor([0.5])))
    if objective.needs_flow_prior and abs(alpha + sigma - 1) > 1e-3:
        found = f"half-way between picture and noise those of {config.prior} sum to {alpha + sigma:.2f}"
        raise ValueError(f"{name} needs a flow-matching prior, whose alpha and sigma sum to 1; {found}")
    if objective.needs_source and not config.source_run:
        raise ValueError(f"{name} edits a scene that is there already; use: sds3d edit RUN PROMPT")
    if objective.needs_regions and not config.regions:
        raise ValueError(
            f"{name} needs texts for parts of the scene; give two or more, such as --region 'a mug@0.4,0,0,0.5'"
        )
    if config.regions and not objective.needs_regions:
        raise ValueError(f"{name} has no use for parts of the scene; --objective regions has")
