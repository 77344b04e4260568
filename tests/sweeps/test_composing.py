"""Cells composed before the sweep starts are the cells that Hydra composes."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from lockdec.config.schema import config_folder, register
from lockdec.sweeps.composing import compose_cells


def test_cells_are_composed_as_hydra_composes_them() -> None:
    cells = [
        ["cross_attention.d_k=2", "seed=1"],
        ["cross_attention=tied", "cross_attention.d_k=2", "seed=1"],
        ["cross_attention=tied", "cross_attention.d_v=3", "data.split=random"],
        ["pair={heads:8,d:2}", "cross_attention.heads=${pair.heads}", "fewshot={shots:4}"],
        ["~callbacks", "encoder=vae", "~stages.attach.batch_size", "data=tunes", "+data.more=1", "seed=2"],
        ["seed=0"],
    ]
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = compose("config", overrides=["debug=tiny"], return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        found = list(compose_cells(config, loader, cells))
        with pytest.raises(ConfigCompositionException):
            list(compose_cells(config, loader, [["cross_attention.d_k=2", "cross_attention.dk=2"]]))
        for cell, composed_once in zip(cells, found, strict=True):
            alone = loader.load_sweep_config(config, cell)
            assert isinstance(alone, DictConfig)
            wanted = OmegaConf.to_container(
                OmegaConf.masked_copy(alone, [str(name) for name in alone if name != "hydra"])
            )
            assert OmegaConf.to_container(composed_once) == wanted
    assert found[0].cross_attention.d_k == 2
    assert found[-1].cross_attention.d_k != 2
