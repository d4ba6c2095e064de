"""Scans as batches of groups for Lightning's trainer."""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.data.grouping import compact_regions, complete, join_groups, make_group
from ptycho_torch.data.scan import Group, Scan

# The fixed groups hold one in so many patterns of the scans, so that their loss makes an epoch
# longer by 2 to 4 %: it has no backward step, but a small group has much border for its size.
FIXED_SHARE = 32
SMALLEST_FIXED = 4  # patterns of a fixed group; fewer hardly overlap
FIXED_BYTES = 2**25  # of the counts of all fixed groups, which stay in memory

GroupIndex = tuple[int, tuple[int, ...]]  # number of the scan, indices of its points


class GroupDataset(Dataset[Group]):
    """Scans, indexed by the number of a scan and the indices of its points."""

    def __init__(self, scans: Sequence[Scan]) -> None:
        self.scans = scans

    def __getitem__(self, index: GroupIndex) -> Group:
        scan, points = index
        return make_group(self.scans[scan], points)


def count_groups(patterns: int, group_size: int, world_size: int) -> int:
    """Groups of a scan: the smallest multiple of the world size that keeps to the group size."""
    return -(-patterns // (group_size * world_size)) * world_size


class GroupSampler(Sampler[GroupIndex]):
    """Neighbourhoods that use every scan point once in an epoch, in a new division at each epoch.

    All processes draw the same division and take every world_size-th group of it, so that each
    scan point is in a group of one of them, and all take the same number of steps.

    The division depends only on the seed and the number of the epoch, so that a resumed run
    gets the groups of an uninterrupted one.

    Args:
        scans: Scans to divide.
        group_size: Largest number of points in a group.
        pad_to: Number of points to which a smaller group is filled up with its neighbours, which
            are then in two groups; None leaves each point in one group.
        seed: Seed of the divisions.
        shuffle: Whether epochs differ; if not, every one is as the first.
        rank: Number of this process, from 0.
        world_size: Number of processes.
    """

    def __init__(
        self,
        scans: Sequence[Scan],
        group_size: int,
        *,
        pad_to: int | None,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.scans = scans
        self.group_size = group_size
        self.pad_to = pad_to
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer before each epoch."""
        self.epoch = epoch if self.shuffle else 0

    def __len__(self) -> int:
        groups = sum(
            count_groups(len(scan), self.group_size, self.world_size) for scan in self.scans
        )
        return groups // self.world_size

    def __iter__(self) -> Iterator[GroupIndex]:
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = [
            (i, points) for i, scan in enumerate(self.scans) for points in self._divide(scan, rng)
        ]
        for i in rng.permutation(len(groups))[self.rank :: self.world_size]:
            yield groups[i]

    def _divide(self, scan: Scan, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """The points of each group of a scan."""
        count = count_groups(len(scan), self.group_size, self.world_size)
        regions = compact_regions(scan.positions_px, count, rng)
        if self.pad_to is not None:
            filled = complete(scan.positions_px, regions, self.pad_to)
            regions = [neighbourhood.points for neighbourhood in filled]
        return [tuple(region.tolist()) for region in regions]


class ScanDataModule(LightningDataModule):
    """Training and validation scans as loaders of groups.

    Args:
        train: Scans to train on.
        validation: Scans for validation; may be empty.
        group_size: Largest number of points in a group.
        variable_group_size: Whether the generator takes groups that are smaller.
        batch_size: Groups in a batch.
        num_workers: Processes that load.
        seed: Seed of the divisions into groups.
        first_epoch: Number of the epoch with which a resumed run begins.
    """

    def __init__(
        self,
        train: Sequence[Scan],
        validation: Sequence[Scan],
        *,
        group_size: int,
        variable_group_size: bool,
        batch_size: int,
        num_workers: int,
        seed: int,
        first_epoch: int = 0,
    ) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.group_size = group_size
        self.variable_group_size = variable_group_size
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.first_epoch = first_epoch

    def train_dataloader(self) -> DataLoader[Group]:
        """Groups of the training scans, other ones at each epoch."""
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Group]:
        """Groups of the validation scans, the same at each epoch."""
        return self._loader(self.validation, shuffle=False)

    def fixed_groups(self) -> list[Group]:
        """A few groups of training patterns, the same for every epoch, process and resumed run."""
        height, width = self.train[0].pattern_shape
        room = FIXED_BYTES // (4 * height * width)
        patterns = min(sum(map(len, self.train)) // FIXED_SHARE, room)
        size = self.group_size
        if self.variable_group_size:
            size = min(size, max(patterns, SMALLEST_FIXED))
        sampler = GroupSampler(
            self.train,
            size,
            pad_to=None if self.variable_group_size else size,
            seed=self.seed,
            shuffle=False,
        )
        chosen = islice(sampler, max(1, patterns // size))
        return [make_group(self.train[number], points) for number, points in chosen]

    def _loader(self, scans: Sequence[Scan], *, shuffle: bool) -> DataLoader[Group]:
        """A loader of the groups of this process."""
        rank, world_size = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        sampler = GroupSampler(
            scans,
            self.group_size,
            pad_to=self._common_size(scans, world_size),
            seed=self.seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
        )
        sampler.set_epoch(self.first_epoch)  # workers load before the trainer calls it
        return DataLoader(
            GroupDataset(scans),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=join_groups,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )

    def _common_size(self, scans: Sequence[Scan], world_size: int) -> int | None:
        """Points that every group must have; None where each group is a batch by itself."""
        if not self.variable_group_size:
            return self.group_size
        if self.batch_size == 1:
            return None
        return max(
            -(-len(scan) // count_groups(len(scan), self.group_size, world_size)) for scan in scans
        )
