"""What is known of each dataset: where it comes from, under which licence, its archives, its splits and their counts.

Facts only, each with where it is from; None and "" mean unknown, and are shown so. Sources by short name:
TV torchvision/datasets/cifar.py · TU ENSTA-U2IS-AI/torch-uncertainty, torch_uncertainty/datasets/imagenet · CODA
GT-RIPL/CODA-Prompt 6417d4f · PILOT sun-hailong/LAMDA-PILOT b253937, README.md and utils/data.py · AV ContinualAI/avalanche,
cub200.py and tiny_imagenet.py · M3SDA the dataset's page ai.bu.edu/M3SDA as kept in datasets-mila/datasets--domainnet ·
HF huggingface.co/datasets/wltjr1007/DomainNet.
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")  # DomainNet, M3SDA


@dataclass(frozen=True)
class Archive:
    """One file to download. `inner`: the folder in it whose content is the dataset's; `makes`: what is there once unpacked.

    A file without `makes` is not an archive and stays as it is.
    """

    url: str
    makes: str = ""  # glob below the dataset's folder
    inner: str = ""
    md5: str = ""
    bytes: int | None = None
    source: str = ""  # of md5 and bytes

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Split:
    """How images become train and test. `needs`: globs of what is placed by hand, with `fetch` and `put` to say how."""

    name: str
    how: str  # a function of bench/data/splits.py; "" for a dataset that is read from its own files
    about: str
    classes: int | None = None
    train: int | None = None
    test: int | None = None
    images: int | None = None  # of both parts, where only that is known
    source: str = ""  # of the counts
    download: bool = True  # are the archives needed
    needs: tuple[str, ...] = ()
    fetch: str = ""
    put: str = ""


@dataclass(frozen=True)
class Entry:
    """A dataset; its folder is $BENCH_DATA/NAME or data/NAME. The first split is the default."""

    name: str
    title: str
    licence: str
    page: str
    archives: tuple[Archive, ...]
    splits: tuple[Split, ...]
    size: str = ""  # of all archives, where their bytes are not known, with its source


def _pilot(fetch: str, classes: int, train: int | None = None, test: int | None = None) -> Split:
    """train/CLASS and test/CLASS as PILOT distributes them; its README offers them on Google Drive and OneDrive only.

    Test images: denominators of the accuracies in logs/ of sun-hailong/CVPR24-Ease; ImageNet-A has 7,500 in all.
    """
    return Split(
        "pilot", "folders", "the train and test folders of LAMDA-PILOT", classes, train, test,
        source="utils/data.py of PILOT; logs of EASE", download=False, needs=("train/*/*", "test/*/*"),
        fetch=f"{fetch} (linked in README.md of github.com/LAMDA-CL/LAMDA-PILOT), and unpack it",
        put="train/CLASS/IMAGES and test/CLASS/IMAGES",
    )  # fmt: skip


SEEDED = "our own 80/20 split of each class, seeded by its name"
BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"  # README.md of hendrycks/imagenet-r and hendrycks/natural-adv-examples
M3SDA = "http://csr.bu.edu/ftp/visda/2019/multi-source"
DRIVE = "https://drive.google.com/file/d"
CODA_LISTS = "https://github.com/GT-RIPL/CODA-Prompt, dataloaders/splits"  # read there by dataloaders/dataloader.py

CIFAR100 = Entry(
    "cifar100", "CIFAR-100 (Krizhevsky 2009), 100 classes of 32 x 32 photographs", "", "https://www.cs.toronto.edu/~kriz/cifar.html",
    (Archive("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python/train",
             md5="eb9058c3a382ffc7106e4002c42a8d85", bytes=169_001_437, source="TV, and what it prints"),),
    (Split("official", "", "the archive's own train and test files", 100, 50_000, 10_000, source="the dataset's page"),),
)  # fmt: skip
CIFAR_FILES = {  # md5, TV
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}

IMAGENET_R = Entry(
    "imagenet-r", "ImageNet-R (Hendrycks et al. 2021), renditions of 200 ImageNet classes", "", "https://github.com/hendrycks/imagenet-r",
    (Archive(f"{BERKELEY}/imagenet-r.tar", "n*/*", "imagenet-r", "a61312130a589d0ca1a8fca1f2bd3337", source="TU"),),
    (Split("coda", "coda", "the list of the CODA-Prompt repository, also used by VQ-Prompt, OVOR, Mammoth", 200, 24_000, 6_000,
           source="the published list", needs=("imagenet-r_train.yaml", "imagenet-r_test.yaml"),
           fetch=f"imagenet-r_train.yaml and imagenet-r_test.yaml from {CODA_LISTS}", put="both files"),
     Split("seeded", "seeded", SEEDED, 200, images=30_000, source="README.md of the page"),
     _pilot(f"{DRIVE}/1SG4TbiL8_DooekztyCVK8mPmfhMo8fkR", 200)),
)  # fmt: skip
# sha256 of the first 16 entries of the published test list, CLASS/FILE per line, alike in two copies of it: aimagelab/mammoth
# 0151ba0 (datasets/imagenet_r_utils/imagenet-r_test.yaml) and cuguniang/CODA-Prompt 1ca3eb8 (dataloaders/splits). The digest
# of the whole list is unknown.
CODA_HEAD = "1c33c31b7708b8bebdad2a0497e470811778a028f6ff0737580fd9782dad85b4"

IMAGENET_A = Entry(
    "imagenet-a", "ImageNet-A (Hendrycks et al. 2021), natural adversarial photographs of 200 ImageNet classes",
    "MIT for the repository; the images' own: unknown", "https://github.com/hendrycks/natural-adv-examples",
    (Archive(f"{BERKELEY}/imagenet-a.tar", "n*/*", "imagenet-a", "c3e55429088dc681f30d81f4726b6595", source="TU"),),
    (_pilot(f"{DRIVE}/19l52ua_vvTtttgVRziCZJjal0TPE9f2p", 200, 5_981, 1_519),
     Split("seeded", "seeded", SEEDED, 200, images=7_500, source="the dataset's paper")),
)  # fmt: skip

VTAB = Entry(
    "vtab", "VTAB-CIL of LAMDA-PILOT, 50 classes, ten from each of five datasets of VTAB",
    "that of its five sources; PILOT: 'I do not have the right to distribute these datasets'", "https://github.com/LAMDA-CL/LAMDA-PILOT",
    (), (_pilot(f"{DRIVE}/1xUiwlnx4k0oDhYi26KL5KwrCAya-mvJ_", 50, None, 8_619),),
)  # fmt: skip

CUB200 = Entry(
    "cub200", "CUB-200-2011 (Wah et al. 2011), birds of 200 species", "", "https://data.caltech.edu/records/65de6-vp158",
    (Archive("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz", "images.txt", "CUB_200_2011",
             "97eceeb196236b17998738112f37df78", 1_150_585_339, "AV; bytes: fast.ai's table of URLs"),),
    (Split("official", "cub", "train_test_split.txt", 200, 5_994, 5_794, source="CNS-TR-2011-001"),
     _pilot(f"{DRIVE}/1XbUpnWpJPnItt5zQ6sHJnsjPncnNLvWb", 200, None, 2_358)),
)  # fmt: skip


def _domainnet() -> tuple[Archive, ...]:
    """The cleaned version: clipart and painting lie in a folder of their own (M3SDA)."""
    cleaned = {
        domain: "groundtruth/" if domain in ("clipart", "painting") else "" for domain in DOMAINS
    }
    images = [
        Archive(f"{M3SDA}/{cleaned[domain]}{domain}.zip", f"{domain}/*/*") for domain in DOMAINS
    ]
    lists = [
        Archive(f"{M3SDA}/domainnet/txt/{domain}_{part}.txt")
        for domain in DOMAINS
        for part in ("train", "test")
    ]
    return (*images, *lists)


DOMAINNET = Entry(
    "domainnet", "DomainNet (Peng et al. 2019), cleaned version, 345 classes in six domains",
    "academic research, under the fair use notice of its page", "http://ai.bu.edu/M3SDA", _domainnet(),
    (Split("official", "domainnet", "the six official lists, domains merged", 345, 409_832, 176_743, source="HF, sum: M3SDA"),
     Split("coda", "domainnet_coda", "the list of the CODA-Prompt repository", 345, source="M3SDA",
           needs=("domainnet_train.yaml", "domainnet_test.yaml"),
           fetch=f"domainnet_train.yaml and domainnet_test.yaml from {CODA_LISTS}", put="both files")),
    "zip files of 1.3, 4.0, 3.7, 0.4, 5.6 and 2.5 GB (M3SDA)",
)  # fmt: skip

TINY = Entry(
    "tiny-imagenet", "Tiny-ImageNet (Stanford CS231n), 200 ImageNet classes of 64 x 64 photographs", "", "http://cs231n.stanford.edu",
    (Archive("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "val/val_annotations.txt", "tiny-imagenet-200",
             "90528d7ca1a48142e341f4ef8d21d0de", 248_100_043, "AV; bytes: logs of downloads"),),
    (Split("official", "tiny", "train, and val as test; the published test images have no labels", 200, 100_000, 10_000,
           source="README.rst of datasets-mila/datasets--tinyimagenet"),),
)  # fmt: skip

CATALOGUE: dict[str, Entry] = {
    entry.name: entry for entry in (CIFAR100, IMAGENET_R, IMAGENET_A, VTAB, CUB200, DOMAINNET, TINY)
}
