//! The table of architectures.

use serde::{Deserialize, Serialize};
use tch::Device;

use super::params::Scope;
use super::{
    InputSizes, InputSpec, Trunk, densenet, dlib_resnet, facenet, inception_v3, iresnet,
    mobilefacenet, openface, vgg,
};

/// The architectures; `--backbone`, model files and the manifest use their
/// [`name`](Architecture::name)s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[allow(missing_docs)] // the table below describes each
pub enum Architecture {
    OpenFace,
    DlibResnet,
    FaceNet,
    IResNet18,
    IResNet34,
    IResNet50,
    IResNet100,
    MobileFaceNet,
    Vgg11,
    Vgg11Bn,
    Vgg13,
    Vgg13Bn,
    Vgg16,
    Vgg16Bn,
    Vgg19,
    Vgg19Bn,
    DenseNet121,
    DenseNet161,
    DenseNet169,
    DenseNet201,
    InceptionV3,
}

/// Description of an architecture.
#[derive(Debug)]
pub struct ArchitectureInfo {
    /// The variant.
    pub architecture: Architecture,
    /// Name for `--backbone`.
    pub name: &'static str,
    /// One line for the help.
    pub summary: &'static str,
    /// Trainable parameters of the trunk, without classifier.
    pub parameters: usize,
    /// Multiply-adds of one native picture through the trunk, in 10⁹ (torchvision's "GFLOPS").
    pub gflops: f64,
    /// Native input size and normalisation.
    pub input: InputSpec,
    /// Supported input sizes.
    pub input_sizes: InputSizes,
    /// Size of the trunk's embedding.
    pub embedding_dim: i64,
    /// Key prefixes of its published classifier; empty if it has none.
    pub classifier: &'static [&'static str],
    /// Known weights.
    pub weights: &'static [KnownWeights],
    /// Publication.
    pub paper: &'static str,
}

/// Published weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownWeights {
    /// File name.
    pub file: &'static str,
    /// Publisher.
    pub source: &'static str,
    /// Number of classes of the classifier; `None` without classifier.
    pub classes: Option<i64>,
    /// Terms of use, as far as stated.
    pub licence: &'static str,
}

/// torchvision's pretrained weights.
const fn torchvision(file: &'static str) -> KnownWeights {
    let licence =
        "BSD-3-Clause (torchvision); trained on ImageNet, whose pictures are for research";
    KnownWeights { file, source: "torchvision, IMAGENET1K_V1", classes: Some(1000), licence }
}

/// facenet-pytorch's pretrained weights.
const fn facenet_pytorch(file: &'static str, classes: i64) -> KnownWeights {
    let licence = "MIT (facenet-pytorch); trained on pictures for research";
    KnownWeights { file, source: "facenet-pytorch 2.2.9", classes: Some(classes), licence }
}

const VGG16_FEATURES: KnownWeights = KnownWeights {
    file: "vgg16_features-amdegroot-88682ab5.pth",
    source: "torchvision, IMAGENET1K_FEATURES (made for another normalisation: pixels - mean)",
    classes: None,
    licence: "BSD-3-Clause (torchvision); the original VGG weights are CC BY 4.0",
};

/// InsightFace publishes one file of this name for each network and training set.
const ARCFACE_TORCH: KnownWeights = KnownWeights {
    file: "backbone.pth",
    source: "InsightFace's arcface_torch (trained on MS1MV3, Glint360K or WebFace)",
    classes: None,
    licence: "non-commercial research only (InsightFace: the weights and their training pictures; the \
              code is MIT)",
};

/// A network of arcface_torch: name, summary, parameters, GFLOPs, paper.
const fn arcface_row(
    architecture: Architecture,
    name: &'static str,
    summary: &'static str,
    (parameters, gflops): (usize, f64),
    paper: &'static str,
) -> ArchitectureInfo {
    ArchitectureInfo {
        architecture,
        name,
        summary,
        parameters,
        gflops,
        input: InputSpec::arcface(iresnet::INPUT),
        input_sizes: InputSizes::Only(iresnet::INPUT),
        embedding_dim: iresnet::EMBEDDING,
        classifier: &[],
        weights: &[ARCFACE_TORCH],
        paper,
    }
}

const ARCFACE: &str = "Deng et al., 2019, arXiv:1801.07698";

/// A VGG: name, summary, parameters, GFLOPs, weights.
const fn vgg_row(
    architecture: Architecture,
    name: &'static str,
    summary: &'static str,
    (parameters, gflops): (usize, f64),
    weights: &'static [KnownWeights],
) -> ArchitectureInfo {
    ArchitectureInfo {
        architecture,
        name,
        summary,
        parameters,
        gflops,
        input: InputSpec::imagenet(224),
        input_sizes: InputSizes::From(32),
        embedding_dim: vgg::EMBEDDING,
        classifier: &["classifier."],
        weights,
        paper: "Simonyan and Zisserman, 2014, arXiv:1409.1556",
    }
}

/// A DenseNet: name, summary, embedding, parameters, GFLOPs, weights.
const fn densenet_row(
    architecture: Architecture,
    name: &'static str,
    summary: &'static str,
    embedding_dim: i64,
    (parameters, gflops): (usize, f64),
    weights: &'static [KnownWeights],
) -> ArchitectureInfo {
    ArchitectureInfo {
        architecture,
        name,
        summary,
        parameters,
        gflops,
        input: InputSpec::imagenet(224),
        input_sizes: InputSizes::From(29),
        embedding_dim,
        classifier: &["classifier."],
        weights,
        paper: "Huang et al., 2017, arXiv:1608.06993",
    }
}

#[rustfmt::skip]
const TABLE: [ArchitectureInfo; 21] = [
    ArchitectureInfo {
        architecture: Architecture::OpenFace,
        name: "openface",
        summary: "OpenFace nn4.small2: 3.7 M parameters, 96x96 in, 128-d out on the unit sphere",
        parameters: 3_733_968,
        gflops: 0.20,
        input: InputSpec::plain(openface::INPUT as u32),
        input_sizes: InputSizes::Only(openface::INPUT as u32),
        embedding_dim: openface::EMBEDDING,
        classifier: &[],
        weights: &[
            KnownWeights {
                file: "openface-nn4-distilled.safetensors",
                source: "Visage, embedded",
                classes: None,
                licence: "MIT, with Visage; research use, as its training pictures",
            },
            KnownWeights {
                file: "openface.pth",
                source: "the PyTorch port of OpenFace",
                classes: None,
                licence: "Apache-2.0 (OpenFace)",
            },
        ],
        paper: "Amos et al., 2016, CMU-CS-16-118",
    },
    ArchitectureInfo {
        architecture: Architecture::DlibResnet,
        name: "dlib-resnet",
        summary: "dlib's face recognition ResNet: 5.6 M parameters, 150x150 in, 128-d out",
        parameters: 5_607_488,
        gflops: 0.27,
        input: InputSpec::dlib(dlib_resnet::INPUT),
        input_sizes: InputSizes::From(103),
        embedding_dim: dlib_resnet::EMBEDDING,
        classifier: &[],
        weights: &[KnownWeights {
            file: "dlib-resnet.safetensors",
            source: "dlib, embedded",
            classes: None,
            licence: "CC0 1.0 (Davis E. King)",
        }],
        paper: "King, 2017, dlib_face_recognition_resnet_model_v1; He et al., 2015, arXiv:1512.03385",
    },
    ArchitectureInfo {
        architecture: Architecture::FaceNet,
        name: "facenet",
        summary: "FaceNet InceptionResnetV1: 23.5 M parameters, 160x160 in, 512-d out",
        parameters: 23_482_624,
        gflops: 1.42,
        input: InputSpec::facenet(160),
        input_sizes: InputSizes::From(75),
        embedding_dim: facenet::EMBEDDING,
        classifier: &["logits."],
        weights: &[
            facenet_pytorch("20180402-114759-vggface2.pt", 8631),
            facenet_pytorch("20180408-102900-casia-webface.pt", 10575),
        ],
        paper: "Schroff et al., 2015, arXiv:1503.03832; Szegedy et al., 2016, arXiv:1602.07261",
    },
    arcface_row(Architecture::IResNet18, "iresnet18",
                "ArcFace's IResNet18: 24.0 M parameters, 112x112 in, 512-d out", (24_025_600, 2.61), ARCFACE),
    arcface_row(Architecture::IResNet34, "iresnet34",
                "ArcFace's IResNet34: 34.1 M parameters, 112x112 in, 512-d out", (34_139_328, 4.46), ARCFACE),
    arcface_row(Architecture::IResNet50, "iresnet50",
                "ArcFace's IResNet50: 43.6 M parameters, 112x112 in, 512-d out", (43_590_848, 6.31), ARCFACE),
    arcface_row(Architecture::IResNet100, "iresnet100",
                "ArcFace's IResNet100: 65.2 M parameters, 112x112 in, 512-d out", (65_156_160, 12.09), ARCFACE),
    arcface_row(Architecture::MobileFaceNet, "mobilefacenet",
                "MobileFaceNet: 2.1 M parameters, 112x112 in, 512-d out", (2_059_520, 0.44),
                "Chen et al., 2018, arXiv:1804.07573"),
    vgg_row(Architecture::Vgg11, "vgg11", "VGG11: 9.2 M parameters, 224x224 in, 512-d out",
            (9_220_480, 7.49), &[torchvision("vgg11-8a719046.pth")]),
    vgg_row(Architecture::Vgg11Bn, "vgg11-bn", "VGG11 with batch normalisation",
            (9_225_984, 7.49), &[torchvision("vgg11_bn-6002323d.pth")]),
    vgg_row(Architecture::Vgg13, "vgg13", "VGG13: 9.4 M parameters, 224x224 in, 512-d out",
            (9_404_992, 11.18), &[torchvision("vgg13-19584684.pth")]),
    vgg_row(Architecture::Vgg13Bn, "vgg13-bn", "VGG13 with batch normalisation",
            (9_410_880, 11.18), &[torchvision("vgg13_bn-abd245e5.pth")]),
    vgg_row(Architecture::Vgg16, "vgg16", "VGG16: 14.7 M parameters, 224x224 in, 512-d out",
            (14_714_688, 15.35), &[torchvision("vgg16-397923af.pth"), VGG16_FEATURES]),
    vgg_row(Architecture::Vgg16Bn, "vgg16-bn", "VGG16 with batch normalisation",
            (14_723_136, 15.35), &[torchvision("vgg16_bn-6c64b313.pth")]),
    vgg_row(Architecture::Vgg19, "vgg19", "VGG19: 20.0 M parameters, 224x224 in, 512-d out",
            (20_024_384, 19.51), &[torchvision("vgg19-dcbb9e9d.pth")]),
    vgg_row(Architecture::Vgg19Bn, "vgg19-bn", "VGG19 with batch normalisation",
            (20_035_392, 19.51), &[torchvision("vgg19_bn-c79401a0.pth")]),
    densenet_row(Architecture::DenseNet121, "densenet121",
                 "DenseNet121: 7.0 M parameters, 224x224 in, 1024-d out", 1024,
                 (6_953_856, 2.83), &[torchvision("densenet121-a639ec97.pth")]),
    densenet_row(Architecture::DenseNet161, "densenet161",
                 "DenseNet161: 26.5 M parameters, 224x224 in, 2208-d out", 2208,
                 (26_472_000, 7.73), &[torchvision("densenet161-8d451a50.pth")]),
    densenet_row(Architecture::DenseNet169, "densenet169",
                 "DenseNet169: 12.5 M parameters, 224x224 in, 1664-d out", 1664,
                 (12_484_480, 3.36), &[torchvision("densenet169-b2777c0a.pth")]),
    densenet_row(Architecture::DenseNet201, "densenet201",
                 "DenseNet201: 18.1 M parameters, 224x224 in, 1920-d out", 1920,
                 (18_092_928, 4.29), &[torchvision("densenet201-c1103571.pth")]),
    ArchitectureInfo {
        architecture: Architecture::InceptionV3,
        name: "inception-v3",
        summary: "InceptionV3: 21.8 M parameters, 299x299 in, 2048-d out",
        parameters: 21_785_568,
        gflops: 5.71,
        input: InputSpec::imagenet(299),
        input_sizes: InputSizes::From(75),
        embedding_dim: inception_v3::EMBEDDING,
        classifier: &["AuxLogits.", "fc."],
        weights: &[torchvision("inception_v3_google-0cc3c7bd.pth")],
        paper: "Szegedy et al., 2016, arXiv:1512.00567",
    },
];

const VARIANTS: [Architecture; TABLE.len()] = {
    let mut variants = [Architecture::OpenFace; TABLE.len()];
    let mut row = 0;
    while row < TABLE.len() {
        variants[row] = TABLE[row].architecture;
        // `info` indexes the table by variant.
        assert!(variants[row] as usize == row, "the table and the enum differ in their order");
        row += 1;
    }
    variants
};

impl Architecture {
    /// All architectures, in the order of the table.
    pub const ALL: [Self; VARIANTS.len()] = VARIANTS;

    /// Its description.
    pub fn info(self) -> &'static ArchitectureInfo {
        static ROWS: [ArchitectureInfo; TABLE.len()] = TABLE;
        &ROWS[self as usize]
    }

    /// Its name for `--backbone` and in model files.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// Builds the network with random weights; with `classes` including its classifier.
    pub(super) fn trunk(self, at: &Scope, device: Device, classes: Option<i64>) -> Box<dyn Trunk> {
        let vgg = |depths, batch_norm| -> Box<dyn Trunk> {
            Box::new(vgg::Vgg::new(at, vgg::VggConfig { depths, batch_norm }, classes))
        };
        let densenet = |stem, growth, depths| -> Box<dyn Trunk> {
            let plan = densenet::DenseNetConfig { stem, growth, depths };
            Box::new(densenet::DenseNet::new(at, plan, classes))
        };
        let iresnet = |depths| -> Box<dyn Trunk> { Box::new(iresnet::IResNet::new(at, depths)) };
        match self {
            Self::OpenFace => Box::new(openface::OpenFace::new(at, device)),
            Self::DlibResnet => Box::new(dlib_resnet::DlibResnet::new(at)),
            Self::FaceNet => Box::new(facenet::FaceNet::new(at, classes)),
            Self::IResNet18 => iresnet([2, 2, 2, 2]),
            Self::IResNet34 => iresnet([3, 4, 6, 3]),
            Self::IResNet50 => iresnet([3, 4, 14, 3]),
            Self::IResNet100 => iresnet([3, 13, 30, 3]),
            Self::MobileFaceNet => Box::new(mobilefacenet::MobileFaceNet::new(at)),
            Self::Vgg11 => vgg([1, 1, 2, 2, 2], false),
            Self::Vgg11Bn => vgg([1, 1, 2, 2, 2], true),
            Self::Vgg13 => vgg([2, 2, 2, 2, 2], false),
            Self::Vgg13Bn => vgg([2, 2, 2, 2, 2], true),
            Self::Vgg16 => vgg([2, 2, 3, 3, 3], false),
            Self::Vgg16Bn => vgg([2, 2, 3, 3, 3], true),
            Self::Vgg19 => vgg([2, 2, 4, 4, 4], false),
            Self::Vgg19Bn => vgg([2, 2, 4, 4, 4], true),
            Self::DenseNet121 => densenet(64, 32, [6, 12, 24, 16]),
            Self::DenseNet161 => densenet(96, 48, [6, 12, 36, 24]),
            Self::DenseNet169 => densenet(64, 32, [6, 12, 32, 32]),
            Self::DenseNet201 => densenet(64, 32, [6, 12, 48, 32]),
            Self::InceptionV3 => Box::new(inception_v3::InceptionV3::new(at, classes)),
        }
    }
}

#[cfg(feature = "cli")]
impl clap::ValueEnum for Architecture {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let info = self.info();
        Some(clap::builder::PossibleValue::new(info.name).help(info.summary))
    }
}

impl From<Architecture> for &'static str {
    fn from(architecture: Architecture) -> Self {
        architecture.name()
    }
}

impl TryFrom<String> for Architecture {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            format!("{name:?} is no architecture that Visage knows ({})", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_through_files_and_the_command_line() {
        for architecture in Architecture::ALL {
            let text = serde_json::to_string(&architecture).unwrap();
            assert_eq!(text, format!("{:?}", architecture.name()));
            assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), architecture);
            #[cfg(feature = "cli")]
            assert_eq!(
                <Architecture as clap::ValueEnum>::from_str(architecture.name(), false),
                Ok(architecture)
            );
        }
        let error = serde_json::from_str::<Architecture>("\"resnet\"").unwrap_err().to_string();
        assert!(error.contains("\"resnet\"") && error.contains("openface, dlib-resnet, facenet"));
    }
}
