//! What TensorBoard's HPARAMS tab shows of a run: the messages of the plugin's `plugin_data.proto` and
//! `api.proto` that it needs, with the numbers of the fields there.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Enumeration, Message, Oneof};
use serde_json::Value;
use tensorboard_proto::summary::Summary;
use tensorboard_proto::types::DataType;

use super::summary::{plugin_summary, tensor_of};

/// A setting: a `google.protobuf.Value` without the kinds that are not used.
#[derive(Clone, PartialEq, Message)]
pub struct Setting {
    #[prost(oneof = "MetricKind", tags = "2, 3, 4")]
    kind: Option<MetricKind>,
}

#[derive(Clone, PartialEq, Oneof)]
enum MetricKind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Switch(bool),
}

/// The type of a setting's column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
enum ColumnType {
    Unset = 0,
    Text = 1,
    Switch = 2,
    Number = 3,
}

#[derive(Clone, PartialEq, Message)]
struct PluginData {
    #[prost(oneof = "Data", tags = "2, 3, 4")]
    data: Option<Data>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Data {
    #[prost(message, tag = "2")]
    Experiment(Experiment),
    #[prost(message, tag = "3")]
    Start(SessionStart),
    #[prost(message, tag = "4")]
    End(SessionEnd),
}

#[derive(Clone, PartialEq, Message)]
struct Experiment {
    #[prost(message, repeated, tag = "4")]
    hparams: Vec<HparamInfo>,
    #[prost(message, repeated, tag = "5")]
    metrics: Vec<MetricInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct HparamInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(enumeration = "ColumnType", tag = "4")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct MetricInfo {
    #[prost(message, optional, tag = "1")]
    name: Option<MetricName>,
}

#[derive(Clone, PartialEq, Message)]
struct MetricName {
    #[prost(string, tag = "2")]
    tag: String,
}

#[derive(Clone, PartialEq, Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Setting>,
    #[prost(double, tag = "5")]
    seconds: f64,
}

#[derive(Clone, PartialEq, Message)]
struct SessionEnd {
    /// 1 is success.
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    seconds: f64,
}

/// The settings of a table of plain values; lists become texts, what is empty is left out.
pub(super) fn settings(table: &Value) -> Vec<(&str, Setting)> {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let entries = table.as_object().into_iter().flatten();
    let kind = |value: &Value| match value {
        Value::Null => None,
        Value::Bool(switch) => Some(MetricKind::Switch(*switch)),
        Value::Number(number) => number.as_f64().map(MetricKind::Number),
        Value::Array(list) => {
            Some(MetricKind::Text(list.iter().map(plain).collect::<Vec<_>>().join(",")))
        }
        other => Some(MetricKind::Text(plain(other))),
    };
    entries
        .filter_map(|(name, value)| Some((name.as_str(), Setting { kind: Some(kind(value)?) })))
        .collect()
}

/// The three records of a session that ends well now: the columns, the values, the end.
pub(super) fn session(
    settings: &[(&str, Setting)],
    metrics: &[String],
    started: SystemTime,
) -> [Summary; 3] {
    let seconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let column = |(name, setting): &(&str, Setting)| {
        let kind = match setting.kind {
            None => ColumnType::Unset,
            Some(MetricKind::Number(_)) => ColumnType::Number,
            Some(MetricKind::Text(_)) => ColumnType::Text,
            Some(MetricKind::Switch(_)) => ColumnType::Switch,
        };
        HparamInfo { name: (*name).to_owned(), kind: kind.into() }
    };
    let metric = |tag: &String| MetricInfo { name: Some(MetricName { tag: tag.clone() }) };
    let values = settings.iter().map(|(name, setting)| ((*name).to_owned(), setting.clone()));
    let experiment = Experiment {
        hparams: settings.iter().map(column).collect(),
        metrics: metrics.iter().map(metric).collect(),
    };
    let start = SessionStart { hparams: values.collect(), seconds: seconds(started) };
    let end = SessionEnd { status: 1, seconds: seconds(SystemTime::now()) };
    [
        ("experiment", Data::Experiment(experiment)),
        ("session_start_info", Data::Start(start)),
        ("session_end_info", Data::End(end)),
    ]
    .map(|(name, data)| {
        let content = PluginData { data: Some(data) }.encode_to_vec();
        // The plugin reads the metadata alone; its own tensor has no element, too.
        let nothing = tensor_of(DataType::DT_FLOAT, &[0]);
        plugin_summary(&format!("_hparams_/{name}"), "hparams", content, nothing)
    })
}
