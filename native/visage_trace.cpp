// A network traced to a TorchScript module, with its tensors as the module's parameters and buffers
// under their state-dict keys. tch's tracing would store them as constants, and has no extra files.

#include <cmath>
#include <cstdint>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/serialization/export.h>

#include "guard.h"

namespace {

using torch::jit::Module;
using torch::jit::Node;
using torch::jit::Value;
using visage::guarded;
using visage::message;

struct Trace {
  Module module;
  std::shared_ptr<torch::jit::Graph> graph;
};

// Runs the network on `input` and sets its outputs; returns zero on failure.
using Network = int (*)(void *data, const at::Tensor *input, const at::Tensor **outputs);
// Receives a chunk of the archive; returns zero on failure.
using Sink = int (*)(void *data, const void *bytes, size_t count);

Module new_module(const char *name, const std::shared_ptr<torch::jit::CompilationUnit> &unit) {
  Module made(c10::QualifiedName(std::string("__torch__.visage.") + name), unit, true);
  // Required by `eval()` and `train()` in Python.
  made.register_attribute("training", c10::BoolType::get(), false);
  return made;
}

// Registers a tensor under a key such as `layer14.seq_list.0.1_conv.weight`: one module per component.
void place(Module at, const std::string &key, const at::Tensor &tensor, bool is_parameter) {
  size_t start = 0;
  for (size_t dot; (dot = key.find('.', start)) != std::string::npos; start = dot + 1) {
    const std::string name = key.substr(start, dot - start);
    if (!at.hasattr(name))
      at.register_module(name, new_module("Block", at._ivalue()->compilation_unit()));
    at = at.attr(name).toModule();
  }
  at.register_parameter(key.substr(start), tensor, !is_parameter);
}

// Tensor constants (a window of ones, the normalisation) become buffers: constants would stay on the
// CPU when the module is moved to a GPU.
void hoist_constants(Trace &trace) {
  std::vector<Node *> constants;
  for (Node *node : trace.graph->nodes())
    if (node->kind() == c10::prim::Constant && node->output()->type()->cast<c10::TensorType>())
      constants.push_back(node);
  size_t number = 0;
  for (Node *node : constants) {
    const auto value = torch::jit::toIValue(node->output());
    if (!value || !value->isTensor() || value->toTensor().dim() == 0) continue;
    const std::string name = "constant_" + std::to_string(number++);
    trace.module.register_parameter(name, value->toTensor(), true);
    torch::jit::WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(
        trace.graph->insertGetAttr(trace.graph->inputs().at(0), name));
    node->destroy();
  }
}

// Removes conversions to the dtype and device that a tensor already has: as traced they name the CPU,
// and would copy the values back to it from a GPU.
void drop_conversions(const std::shared_ptr<torch::jit::Graph> &graph) {
  static const auto conversion = c10::Symbol::fromQualString("aten::to");
  std::vector<Node *> idle;
  for (Node *node : graph->nodes()) {
    if (node->kind() != conversion) continue;
    const auto from = node->input(0)->type()->cast<c10::TensorType>();
    const auto to = node->output()->type()->cast<c10::TensorType>();
    if (from && to && from->scalarType() && from->scalarType() == to->scalarType() &&
        from->device() && from->device() == to->device())
      idle.push_back(node);
  }
  for (Node *node : idle) {
    node->output()->replaceAllUsesWith(node->input(0));
    node->destroy();
  }
}

// The tracer records that memory was allocated, but not how it was filled: such a network would be
// traced with zeros or uninitialised values.
void refuse_unseen_values(const torch::jit::Graph &graph) {
  for (const Node *node : graph.nodes()) {
    const std::string kind = node->kind().toQualString();
    for (const char *allocates : {"aten::zeros", "aten::empty", "aten::empty_strided"})
      if (kind == allocates)
        throw std::runtime_error(kind + " in the trace: a tensor was filled from outside while the "
                                        "network ran; make it before, or by operations");
  }
}

void quote(std::ostream &out, const std::string &text) {
  out << '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') out << '\\';
    out << (static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
  }
  out << '"';
}

void number(std::ostream &out, double value) {
  if (std::isfinite(value)) {
    out << "{\"float\":" << value << '}';
  } else {
    out << "{\"other\":\"" << value << "\"}";
  }
}

// The key of a tensor that the code reads from the module.
std::string path_of(const Value *value) {
  const Node *node = value->node();
  if (node->kind() != c10::prim::GetAttr) return {};
  const std::string parent = path_of(node->input());
  const std::string &name = node->s(c10::attr::name);
  return parent.empty() ? name : parent + '.' + name;
}

// One argument of an operation, as JSON.
void describe(std::ostream &out, const Value *value) {
  const Node *node = value->node();
  if (node->kind() == c10::prim::GetAttr) {
    out << "{\"attribute\":";
    quote(out, path_of(value));
    out << '}';
  } else if (node->kind() == c10::prim::ListConstruct) {
    out << "{\"list\":[";
    const char *comma = "";
    for (const Value *input : node->inputs()) {
      out << comma;
      describe(out, input);
      comma = ",";
    }
    out << "]}";
  } else if (const auto constant = torch::jit::toIValue(value)) {
    if (constant->isNone()) {
      out << "\"none\"";
    } else if (constant->isInt()) {
      out << "{\"int\":" << constant->toInt() << '}';
    } else if (constant->isDouble()) {
      number(out, constant->toDouble());
    } else if (constant->isBool()) {
      out << "{\"int\":" << (constant->toBool() ? 1 : 0) << '}';
    } else if (constant->isIntList()) {
      out << "{\"list\":[";
      const char *comma = "";
      for (const int64_t item : constant->toIntVector()) {
        out << comma << "{\"int\":" << item << '}';
        comma = ",";
      }
      out << "]}";
    } else if (constant->isTensor() && constant->toTensor().dim() == 0) {
      number(out, constant->toTensor().item<double>());
    } else {
      out << "{\"other\":";
      quote(out, constant->tagKind());
      out << '}';
    }
  } else {
    out << "{\"value\":" << value->unique() << '}';
  }
}

template <class Values>
void describe_ids(std::ostream &out, const Values &values) {
  const char *comma = "";
  out << '[';
  for (const Value *value : values) {
    out << comma << value->unique();
    comma = ",";
  }
  out << ']';
}

} // namespace

extern "C" {

void visage_trace_free(Trace *trace) noexcept { delete trace; }

// Runs `network` once on `input` and traces it. `names`, `tensors` and `are_parameters` are the state
// of the network: the same tensors that it computes with, not copies. One output is returned as a
// tensor, several as a tuple.
char *visage_trace_new(size_t count, const char *const *names, at::Tensor *const *tensors,
                       const unsigned char *are_parameters, const at::Tensor *input,
                       size_t outputs, Network network, void *data, Trace **made) {
  return guarded([&] {
    auto unit = std::make_shared<torch::jit::CompilationUnit>();
    auto trace = std::make_unique<Trace>(Trace{new_module("Network", unit), nullptr});
    for (size_t i = 0; i < count; ++i)
      place(trace->module, names[i], *tensors[i], are_parameters[i] != 0);
    const auto run = [&](torch::jit::Stack inputs) -> torch::jit::Stack {
      const at::Tensor pictures = inputs.at(0).toTensor();
      std::vector<const at::Tensor *> found(outputs, nullptr);
      if (network(data, &pictures, found.data()) == 0)
        throw std::runtime_error("the network failed while it was recorded");
      if (outputs == 1) return {*found[0]};
      std::vector<c10::IValue> all;
      for (const at::Tensor *output : found) all.emplace_back(*output);
      return {c10::ivalue::Tuple::create(std::move(all))};
    };
    const auto no_names = [](const at::Tensor &) { return std::string(); };
    trace->graph = torch::jit::tracer::trace({*input}, run, no_names, true, false, &trace->module,
                                             {"pictures"})
                       .first->graph;
    refuse_unseen_values(*trace->graph);
    torch::jit::ConstantPropagation(trace->graph);
    drop_conversions(trace->graph);
    torch::jit::EliminateDeadCode(trace->graph);
    hoist_constants(*trace);
    const c10::QualifiedName name(*trace->module.type()->name(), "forward");
    trace->module.type()->addMethod(unit->create_function(name, trace->graph));
    *made = trace.release();
  });
}

// The recorded operations as JSON: {"input": id, "outputs": [id, ...], "nodes": [{"kind": "aten::relu",
// "inputs": [argument, ...], "outputs": [id, ...]}, ...]} in the order in which they run, as text to be
// freed.
char *visage_trace_describe(const Trace *trace, char **text) {
  return guarded([&] {
    std::ostringstream out;
    out.precision(17);
    const auto &graph = *trace->graph;
    out << "{\"input\":" << graph.inputs().at(1)->unique() << ",\"outputs\":";
    const Node *last = graph.outputs().at(0)->node();
    const bool tuple = last->kind() == c10::prim::TupleConstruct;
    describe_ids(out, tuple ? last->inputs() : graph.outputs());
    out << ",\"nodes\":[";
    const char *comma = "";
    for (const Node *node : graph.nodes()) {
      const auto kind = node->kind();
      if (kind == c10::prim::Constant || kind == c10::prim::GetAttr ||
          kind == c10::prim::ListConstruct || (tuple && node == last))
        continue;
      out << comma << "{\"kind\":";
      quote(out, kind.toQualString());
      out << ",\"inputs\":[";
      const char *between = "";
      for (const Value *input : node->inputs()) {
        out << between;
        describe(out, input);
        between = ",";
      }
      out << "],\"outputs\":";
      describe_ids(out, node->outputs());
      out << '}';
      comma = ",";
    }
    out << "]}";
    *text = message(out.str().c_str());
  });
}

// A tensor of the module by its key; the caller owns the new handle.
char *visage_trace_tensor(const Trace *trace, const char *key, at::Tensor **found) {
  return guarded([&] {
    Module at = trace->module;
    const std::string path = key;
    size_t start = 0;
    for (size_t dot; (dot = path.find('.', start)) != std::string::npos; start = dot + 1)
      at = at.attr(path.substr(start, dot - start)).toModule();
    *found = new at::Tensor(at.attr(path.substr(start)).toTensor());
  });
}

// Writes the module as a TorchScript archive with one extra file in it.
char *visage_trace_save(const Trace *trace, const char *extra_name, const char *extra_text,
                        Sink sink, void *data) {
  return guarded([&] {
    const auto write = [&](const void *bytes, size_t count) {
      return sink(data, bytes, count) == 0 ? size_t{0} : count;
    };
    torch::jit::ExportModule(trace->module, write, {{extra_name, extra_text}});
  });
}

} // extern "C"
