"""Scans as batches of groups: what Lightning's trainer reads."""

from collections.abc import Iterator, Sequence

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.grouping import compact_regions, complete, join_groups, make_group
from ptycho_torch.scan import Group, Scan

GroupIndex = tuple[int, tuple[int, ...]]  # number of the scan, indices of its points


class GroupDataset(Dataset[Group]):
    """Scans, indexed by the number of a scan and the indices of its points."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        self.scans = scans

    def __getitem__(self, index: GroupIndex) -> Group:
        scan, members = index
        return make_group(self.scans[scan], members)


def count_groups(patterns: int, members: int, processes: int) -> int:
    """Groups of a scan: the fewest of at most so many members that the processes share evenly."""
    return -(-patterns // (members * processes)) * processes


class GroupSampler(Sampler[GroupIndex]):
    """Neighbourhoods that use every scan point in an epoch, divided anew at each.

    Several processes draw the same division and deal it out, one group to each in turn, so that
    each scan point is in a group of one of them, and all take as many steps.

    The division depends on the seed and the number of the epoch alone, so that a resumed run
    sees what an uninterrupted one would have seen.

    Args:
        scans: What to divide.
        members: Points in a group, at most.
        complete_to: Points to which a smaller group is completed by its neighbours, which are
            then in two groups; None leaves each point in one group.
        seed: Of the divisions.
        anew: Whether epochs differ; if not, every one is as the first.
        rank: Which process this is, from 0.
        processes: How many share the groups.
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        members: int,
        *,
        complete_to: int | None,
        seed: int,
        anew: bool,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.scans = scans
        self.members = members
        self.complete_to = complete_to
        self.seed = seed
        self.anew = anew
        self.rank = rank
        self.processes = processes
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch if self.anew else 0

    def __len__(self) -> int:
        return sum(count_groups(len(scan), self.members, self.processes) for scan in self.scans) // self.processes

    def __iter__(self) -> Iterator[GroupIndex]:
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = [(number, members) for number, scan in enumerate(self.scans) for members in self._divide(scan, rng)]
        for i in rng.permutation(len(groups))[self.rank :: self.processes]:
            yield groups[i]

    def _divide(self, scan: Scan, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """The points of each group of a scan."""
        regions = compact_regions(scan.positions_px, count_groups(len(scan), self.members, self.processes), rng)
        if self.complete_to is not None:
            regions = [whole.members for whole in complete(scan.positions_px, regions, self.complete_to)]
        return [tuple(region.tolist()) for region in regions]


class ScanDataModule(LightningDataModule):
    """Training and validation scans as loaders of groups.

    Args:
        train: Scans to learn from.
        validation: Scans that judge; may be empty.
        members: Points in a group, at most.
        any_size: Whether the generator takes groups that are smaller.
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
        any_size: bool,
        batch_size: int,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.members = members
        self.any_size = any_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed

    def train_dataloader(self) -> DataLoader[Group]:
        """Groups of the training scans, other ones at each epoch."""
        return self._loader(self.train, anew=True)

    def val_dataloader(self) -> DataLoader[Group]:
        """Groups of the validation scans, the same at each epoch."""
        return self._loader(self.validation, anew=False)

    def _sampler(self, scans: Sequence[Scan], *, anew: bool) -> GroupSampler:
        """The groups of this process."""
        rank, processes = self._place()
        return GroupSampler(
            scans,
            self.members,
            complete_to=self._common_size(scans, processes),
            seed=self.seed,
            anew=anew,
            rank=rank,
            processes=processes,
        )

    def _place(self) -> tuple[int, int]:
        """Which of the trainer's processes this is, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _common_size(self, scans: Sequence[Scan], processes: int) -> int | None:
        """Points that every group must have; None if groups may differ, since each is a batch by itself."""
        if not self.any_size:
            return self.members
        if self.batch_size == 1:
            return None
        return max(-(-len(scan) // count_groups(len(scan), self.members, processes)) for scan in scans)

    def _loader(self, scans: Sequence[Scan], *, anew: bool) -> DataLoader[Group]:
        """A loader of groups."""
        return DataLoader(
            GroupDataset(scans),
            batch_size=self.batch_size,
            sampler=self._sampler(scans, anew=anew),
            collate_fn=join_groups,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
