"""Scans as batches of groups: what Lightning's trainer reads."""

from collections.abc import Iterator, Sequence

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.grouping import divide, join_groups, make_group
from ptycho_torch.scan import Group, Scan

GroupIndex = tuple[int, tuple[int, ...]]  # number of the scan, indices of its points


class GroupDataset(Dataset[Group]):
    """Scans, indexed by the number of a scan and the indices of its points."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        self.scans = scans

    def __getitem__(self, index: GroupIndex) -> Group:
        scan, members = index
        return make_group(self.scans[scan], members)


class GroupSampler(Sampler[GroupIndex]):
    """Neighbourhoods that use every scan point in an epoch, divided anew at each.

    The division depends on the seed and the number of the epoch alone, so that a resumed run
    sees what an uninterrupted one would have seen.

    Args:
        scans: What to divide.
        members: Points in a group.
        seed: Of the divisions.
        anew: Whether epochs differ; if not, every one is as the first.
    """

    def __init__(self, scans: Sequence[Scan], members: int, *, seed: int, anew: bool) -> None:
        self.scans = scans
        self.members = members
        self.seed = seed
        self.anew = anew
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch if self.anew else 0

    def __len__(self) -> int:
        return sum(-(-len(scan) // self.members) for scan in self.scans)

    def __iter__(self) -> Iterator[GroupIndex]:
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = [
            (number, tuple(neighbourhood.members.tolist()))
            for number, scan in enumerate(self.scans)
            for neighbourhood in divide(scan.positions_px, core=self.members, size=self.members, rng=rng)
        ]
        for i in rng.permutation(len(groups)):
            yield groups[i]


class ScanDataModule(LightningDataModule):
    """Training and validation scans as loaders of groups.

    Args:
        train: Scans to learn from.
        validation: Scans that judge; may be empty.
        members: Points in a group.
        batch_size: Groups in a batch.
        num_workers: Processes that load.
        seed: Of the divisions into groups.
    """

    def __init__(
        self,
        train: Sequence[Scan],
        validation: Sequence[Scan],
        *,
        members: int,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.members = members
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Group]:
        """Groups of the training scans, other ones at each epoch."""
        return self._loader(self.train, self.train_sampler())

    def train_sampler(self) -> GroupSampler:
        """The order of the training groups."""
        return GroupSampler(self.train, self.members, seed=self.seed, anew=True)

    def val_dataloader(self) -> DataLoader[Group]:
        """Groups of the validation scans, the same at each epoch."""
        sampler = GroupSampler(self.validation, self.members, seed=self.seed, anew=False)
        return self._loader(self.validation, sampler)

    def _loader(self, scans: Sequence[Scan], sampler: GroupSampler) -> DataLoader[Group]:
        """A loader of groups."""
        return DataLoader(
            GroupDataset(scans),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=join_groups,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
