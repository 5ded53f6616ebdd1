"""Diffusion over users' interaction rows: noise, denoise, generate. Imports torch alone."""

from recbole_diffmm.diffusion.denoiser import Denoiser
from recbole_diffmm.diffusion.gaussian import GaussianDiffusion
from recbole_diffmm.diffusion.generation import HiddenSpaceSampler, top_items
from recbole_diffmm.diffusion.latent import LatentSpace
from recbole_diffmm.diffusion.losses import denoising_losses, dense_denoising_losses
from recbole_diffmm.diffusion.schedule import NoiseSchedule

__all__ = [
    "Denoiser",
    "GaussianDiffusion",
    "HiddenSpaceSampler",
    "LatentSpace",
    "NoiseSchedule",
    "denoising_losses",
    "dense_denoising_losses",
    "top_items",
]
