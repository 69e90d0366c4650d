"""Facts about each dataset: source, licence, archives, splits and their counts.

Each fact has its source. None and "" mean unknown, and are shown so. Short names of sources:
TV torchvision/datasets/cifar.py · TU ENSTA-U2IS-AI/torch-uncertainty,
torch_uncertainty/datasets/imagenet · CODA GT-RIPL/CODA-Prompt 6417d4f · PILOT
sun-hailong/LAMDA-PILOT b253937, README.md and utils/data.py · AV ContinualAI/avalanche, cub200.py
and tiny_imagenet.py · M3SDA the dataset's page ai.bu.edu/M3SDA as kept in
datasets-mila/datasets--domainnet · HF huggingface.co/datasets/wltjr1007/DomainNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")  # DomainNet, M3SDA


@dataclass(frozen=True)
class Archive:
    """One file to download. A file without `makes` is not an archive and stays as it is."""

    url: str
    makes: str = ""  # glob below the dataset's folder of files that unpacking gives
    inner: str = ""  # the folder in the archive that holds the dataset's files
    md5: str = ""
    bytes: int | None = None
    source: str = ""  # of md5 and bytes

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Split:
    """How images become train and test."""

    name: str
    how: str  # a function of prepare/splits.py; "": the dataset's own files say it
    about: str
    classes: int | None = None
    train: int | None = None
    test: int | None = None
    images: int | None = None  # of both parts, where only that is known
    source: str = ""  # of the counts
    download: bool = True  # whether the archives are needed
    needs: tuple[str, ...] = ()  # globs of files that the user has to put there
    fetch: str = ""  # from where the user gets them
    put: str = ""  # their names or layout


@dataclass(frozen=True)
class Entry:
    """A dataset. Its folder is $BENCH_DATA/NAME or data/NAME. The first split is the default."""

    name: str
    title: str
    licence: str
    page: str
    archives: tuple[Archive, ...]
    splits: tuple[Split, ...]
    size: str = ""  # of all archives, where their bytes are not known, with its source
    files: Mapping[str, str] = field(default_factory=dict)  # md5 by name, if they are the split


def _pilot(fetch: str, classes: int, train: int | None = None, test: int | None = None) -> Split:
    """train/CLASS and test/CLASS as PILOT distributes them.

    Its README offers them on Google Drive and OneDrive only. The counts of test images are the
    denominators of the accuracies in logs/ of sun-hailong/CVPR24-Ease; ImageNet-A has 7,500 images
    in all.
    """
    return Split(
        "pilot",
        "folders",
        "the train and test folders of LAMDA-PILOT",
        classes,
        train,
        test,
        source="utils/data.py of PILOT; logs of EASE",
        download=False,
        needs=("train/*/*", "test/*/*"),
        fetch=f"{fetch} (linked in README.md of github.com/LAMDA-CL/LAMDA-PILOT), and unpack it",
        put="train/CLASS/IMAGES and test/CLASS/IMAGES",
    )


SEEDED = "our own 80/20 split of each class, seeded by its name"
# README.md of hendrycks/imagenet-r and of hendrycks/natural-adv-examples
BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
M3SDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
DRIVE = "https://drive.google.com/file/d"
# dataloaders/dataloader.py of CODA reads the lists there
CODA_LISTS = "https://github.com/GT-RIPL/CODA-Prompt, dataloaders/splits"

CIFAR100 = Entry(
    name="cifar100",
    title="CIFAR-100 (Krizhevsky 2009), 100 classes of 32 x 32 photographs",
    licence="",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            makes="cifar-100-python/train",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            bytes=169_001_437,
            source="TV, and what it prints",
        ),
    ),
    splits=(
        Split(
            name="official",
            how="",
            about="the archive's own train and test files",
            classes=100,
            train=50_000,
            test=10_000,
            source="the dataset's page",
        ),
    ),
    files={  # TV
        "cifar-100-python/train": "16019d7e3df5f24257cddd939b257f8d",
        "cifar-100-python/test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
        "cifar-100-python/meta": "7973b15100ade9c7d40fb424638fde48",
    },
)

IMAGENET_R = Entry(
    name="imagenet-r",
    title="ImageNet-R (Hendrycks et al. 2021), renditions of 200 ImageNet classes",
    licence="",
    page="https://github.com/hendrycks/imagenet-r",
    archives=(
        Archive(
            f"{BERKELEY}/imagenet-r.tar",
            makes="n*/*",
            inner="imagenet-r",
            md5="a61312130a589d0ca1a8fca1f2bd3337",
            source="TU",
        ),
    ),
    splits=(
        Split(
            name="coda",
            how="coda",
            about="the list of the CODA-Prompt repository, also used by VQ-Prompt, OVOR, Mammoth",
            classes=200,
            train=24_000,
            test=6_000,
            source="the published list",
            needs=("imagenet-r_train.yaml", "imagenet-r_test.yaml"),
            fetch=f"imagenet-r_train.yaml and imagenet-r_test.yaml from {CODA_LISTS}",
            put="both files",
        ),
        Split(
            name="seeded",
            how="seeded",
            about=SEEDED,
            classes=200,
            images=30_000,
            source="README.md of the page",
        ),
        _pilot(f"{DRIVE}/1SG4TbiL8_DooekztyCVK8mPmfhMo8fkR", classes=200),
    ),
)
# sha256 of the first 16 entries of the published test list, one CLASS/FILE a line. Two copies of
# the list agree: aimagelab/mammoth 0151ba0 (datasets/imagenet_r_utils/imagenet-r_test.yaml) and
# cuguniang/CODA-Prompt 1ca3eb8 (dataloaders/splits). The digest of the complete list is unknown.
CODA_TEST_LIST_SHA256 = "1c33c31b7708b8bebdad2a0497e470811778a028f6ff0737580fd9782dad85b4"

IMAGENET_A = Entry(
    name="imagenet-a",
    title="ImageNet-A (Hendrycks et al. 2021), natural adversarial photographs of 200 ImageNet "
    "classes",
    licence="MIT for the repository; the images' own: unknown",
    page="https://github.com/hendrycks/natural-adv-examples",
    archives=(
        Archive(
            f"{BERKELEY}/imagenet-a.tar",
            makes="n*/*",
            inner="imagenet-a",
            md5="c3e55429088dc681f30d81f4726b6595",
            source="TU",
        ),
    ),
    splits=(
        _pilot(f"{DRIVE}/19l52ua_vvTtttgVRziCZJjal0TPE9f2p", classes=200, train=5_981, test=1_519),
        Split(
            name="seeded",
            how="seeded",
            about=SEEDED,
            classes=200,
            images=7_500,
            source="the dataset's paper",
        ),
    ),
)

VTAB = Entry(
    name="vtab",
    title="VTAB-CIL of LAMDA-PILOT, 50 classes, ten from each of five datasets of VTAB",
    licence="that of its five sources; PILOT: 'I do not have the right to distribute these "
    "datasets'",
    page="https://github.com/LAMDA-CL/LAMDA-PILOT",
    archives=(),
    splits=(_pilot(f"{DRIVE}/1xUiwlnx4k0oDhYi26KL5KwrCAya-mvJ_", classes=50, test=8_619),),
)

CUB200 = Entry(
    name="cub200",
    title="CUB-200-2011 (Wah et al. 2011), birds of 200 species",
    licence="",
    page="https://data.caltech.edu/records/65de6-vp158",
    archives=(
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            makes="images.txt",
            inner="CUB_200_2011",
            md5="97eceeb196236b17998738112f37df78",
            bytes=1_150_585_339,
            source="AV; bytes: fast.ai's table of URLs",
        ),
    ),
    splits=(
        Split(
            name="official",
            how="cub",
            about="train_test_split.txt",
            classes=200,
            train=5_994,
            test=5_794,
            source="CNS-TR-2011-001",
        ),
        _pilot(f"{DRIVE}/1XbUpnWpJPnItt5zQ6sHJnsjPncnNLvWb", classes=200, test=2_358),
    ),
)


def _domainnet() -> tuple[Archive, ...]:
    """The cleaned version. Its clipart and painting are in a folder of their own (M3SDA)."""
    images, lists = [], []
    for domain in DOMAINS:
        folder = "groundtruth/" if domain in ("clipart", "painting") else ""
        images.append(Archive(f"{M3SDA}/{folder}{domain}.zip", f"{domain}/*/*"))
        for part in ("train", "test"):
            lists.append(Archive(f"{M3SDA}/domainnet/txt/{domain}_{part}.txt"))
    return (*images, *lists)


DOMAINNET = Entry(
    name="domainnet",
    title="DomainNet (Peng et al. 2019), cleaned version, 345 classes in six domains",
    licence="academic research, under the fair use notice of its page",
    page="http://ai.bu.edu/M3SDA",
    archives=_domainnet(),
    splits=(
        Split(
            name="official",
            how="domainnet",
            about="the six official lists, domains merged",
            classes=345,
            train=409_832,
            test=176_743,
            source="HF, sum: M3SDA",
        ),
        Split(
            name="coda",
            how="domainnet_coda",
            about="the list of the CODA-Prompt repository",
            classes=345,
            source="M3SDA",
            needs=("domainnet_train.yaml", "domainnet_test.yaml"),
            fetch=f"domainnet_train.yaml and domainnet_test.yaml from {CODA_LISTS}",
            put="both files",
        ),
    ),
    size="zip files of 1.3, 4.0, 3.7, 0.4, 5.6 and 2.5 GB (M3SDA)",
)

TINY = Entry(
    name="tiny-imagenet",
    title="Tiny-ImageNet (Stanford CS231n), 200 ImageNet classes of 64 x 64 photographs",
    licence="",
    page="http://cs231n.stanford.edu",
    archives=(
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            makes="val/val_annotations.txt",
            inner="tiny-imagenet-200",
            md5="90528d7ca1a48142e341f4ef8d21d0de",
            bytes=248_100_043,
            source="AV; bytes: logs of downloads",
        ),
    ),
    splits=(
        Split(
            name="official",
            how="tiny",
            about="train, and val as test; the published test images have no labels",
            classes=200,
            train=100_000,
            test=10_000,
            source="README.rst of datasets-mila/datasets--tinyimagenet",
        ),
    ),
)

CATALOGUE: dict[str, Entry] = {
    entry.name: entry for entry in (CIFAR100, IMAGENET_R, IMAGENET_A, VTAB, CUB200, DOMAINNET, TINY)
}
