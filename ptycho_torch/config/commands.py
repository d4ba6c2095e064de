"""The table of the commands: name, options, function and help."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command.

    Attributes:
        options: Import string of the class of its options.
        function: Import string of the function that gets them.
        help: One line.
    """

    options: str
    function: str
    help: str


COMMANDS = {
    "simulate": Command(
        "ptycho_torch.config.command_options:SimulationConfig",
        "ptycho_torch.cli.simulate:simulate",
        "make a scan of a known object",
    ),
    "train": Command(
        "ptycho_torch.config.command_options:TrainingConfig",
        "ptycho_torch.train:train",
        "train a generator on measured patterns",
    ),
    "infer": Command(
        "ptycho_torch.config.command_options:InferenceConfig",
        "ptycho_torch.inference:reconstruct",
        "reconstruct a scan with a trained generator",
    ),
    "live": Command(
        "ptycho_torch.config.command_options:LiveConfig",
        "ptycho_torch.inference.live.follow:follow",
        "reconstruct a scan while it is measured",
    ),
    "compare": Command(
        "ptycho_torch.config.command_options:CompareConfig",
        "ptycho_torch.cli.compare_images:compare",
        "compare a result with the truth or with another result",
    ),
    "doctor": Command(
        "ptycho_torch.config.command_options:DoctorConfig",
        "ptycho_torch.doctor:diagnose",
        "say whether a scan is what its file says",
    ),
    "convert": Command(
        "ptycho_torch.config.command_options:ConversionConfig",
        "ptycho_torch.cli.convert:convert",
        "write a scan in another format",
    ),
    "report": Command(
        "ptycho_torch.config.command_options:ReportConfig",
        "ptycho_torch.cli.rebuild_page:report",
        "make the page of a reconstruction or of an archive of tests again; draw several archives",
    ),
    "verify": Command(
        "ptycho_torch.config.command_options:VerifyConfig",
        "ptycho_torch.cli.verify_archive:verify_archive",
        "say whether an archive of tests is as it was written",
    ),
    "demo": Command(
        "ptycho_torch.config.command_options:DemoConfig",
        "ptycho_torch.cli.demo:demonstrate",
        "do all of it on a simulated scan, and compare with the truth",
    ),
}
