"""``predict HEAD IMAGE...``: what a head sees in images."""

import argparse


def add_parser(subparsers, parent: argparse.ArgumentParser) -> None:
    """Add ``predict`` to the command line."""
    parser = subparsers.add_parser(
        "predict",
        parents=[parent],
        help="label images with a head",
        description="Label images with a head: image, label and probability, a line an image, separated by tabs.",
        epilog="example: python -m d2nwg predict out/head.safetensors cat.jpg dog.png",
    )
    parser.add_argument("head", metavar="HEAD", help="a head file, such as OUT/head.safetensors of generate")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print a line an image."""
    from d2nwg.heads import Head, predict_images
    from d2nwg.utils.text import shown

    for row in predict_images(Head.load(args.head), args.images, top=1, device=args.device):
        print(shown(row["image"], None), shown(row["label"], None), f"{row['probability']:.4f}", sep="\t")
