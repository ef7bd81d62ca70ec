// Processes that train together: libtorch's own process group over gloo, found through its TCP store.

#define USE_C10D_GLOO

#include "guard.h"

// The headers below need what this one declares.
#include <torch/types.h>

#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

using c10d::ProcessGroupGloo;
using visage::guarded;

namespace {

struct Group {
  c10::intrusive_ptr<ProcessGroupGloo> group;
  std::chrono::milliseconds timeout;
};

// Waits for a collective; throws what went wrong in it.
void wait(const Group &group, const c10::intrusive_ptr<c10d::Work> &work) {
  work->wait(group.timeout);
}

// The sum over all processes of a new tensor.
at::Tensor summed(const Group &group, const at::Tensor &own) {
  std::vector<at::Tensor> tensors{own.detach().contiguous().clone()};
  wait(group, group.group->allreduce(tensors));
  return tensors[0];
}

// A sum over processes that each compute a part of one loss from it: the gradient of what a process gave is the
// sum of the gradients that the parts have.
struct Sum : torch::autograd::Function<Sum> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &own,
                            const Group &group) {
    // Lives as long as the graph, also where that outlives the caller's group.
    context->saved_data["group"] = c10::IValue::make_capsule(group.group);
    context->saved_data["timeout"] = static_cast<int64_t>(group.timeout.count());
    return summed(group, own);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto capsule = context->saved_data["group"].toCapsule();
    const Group group{c10::static_intrusive_pointer_cast<ProcessGroupGloo>(capsule),
                      std::chrono::milliseconds(context->saved_data["timeout"].toInt())};
    return {summed(group, gradients[0]), at::Tensor()};
  }
};

// The sums over all processes of the gradients of some parameters, in buckets, while the backward pass goes on: a
// bucket is under way as soon as its gradients are there. Buckets follow one another in one order, which all
// processes share.
class GradientSum {
public:
  GradientSum(const Group &group, const std::vector<at::Tensor> &parameters, int64_t most)
      : group(group) {
    // The gradients of the last layers come first.
    int64_t values = 0;
    for (size_t at = parameters.size(); at-- > 0;) {
      const auto more = parameters[at].numel();
      if (buckets.empty() || values + more > most) {
        buckets.emplace_back();
        values = 0;
      }
      values += more;
      buckets.back().parameters.push_back(parameters[at]);
    }
    for (auto &bucket : buckets) {
      for (const auto &parameter : bucket.parameters) {
        torch::autograd::impl::set_post_acc_grad_hooks(parameter,
                                                       std::make_unique<Hook>(*this, bucket));
      }
    }
  }

  GradientSum(const GradientSum &) = delete;
  GradientSum &operator=(const GradientSum &) = delete;

  ~GradientSum() {
    for (const auto &bucket : buckets) {
      for (const auto &parameter : bucket.parameters) {
        torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
      }
    }
  }

  // Replaces the gradients by their sums. Parameters without a gradient, in any process, stay without.
  void finish() {
    while (started < buckets.size()) {
      start(buckets[started++]);
    }
    const at::NoGradGuard guard;
    for (auto &bucket : buckets) {
      wait(group, bucket.work);
      int64_t at = 0;
      for (const auto &parameter : bucket.parameters) {
        const auto &gradient = parameter.grad();
        if (gradient.defined()) {
          gradient.copy_(bucket.sum[0].narrow(0, at, gradient.numel()).view(gradient.sizes()));
        }
        at += parameter.numel();
      }
    }
  }

private:
  struct Bucket {
    std::vector<at::Tensor> parameters;
    size_t ready = 0;
    std::vector<at::Tensor> sum;
    c10::intrusive_ptr<c10d::Work> work;
  };

  struct Hook : torch::autograd::PostAccumulateGradHook {
    Hook(GradientSum &sum, Bucket &bucket) : sum(sum), bucket(bucket) {}

    void operator()(const torch::autograd::Variable &) override {
      ++bucket.ready;
      sum.start_ready();
    }

    GradientSum &sum;
    Bucket &bucket;
  };

  void start_ready() {
    while (started < buckets.size() &&
           buckets[started].ready >= buckets[started].parameters.size()) {
      start(buckets[started++]);
    }
  }

  void start(Bucket &bucket) {
    const at::NoGradGuard guard;
    std::vector<at::Tensor> rows;
    for (const auto &parameter : bucket.parameters) {
      const auto &gradient = parameter.grad();
      rows.push_back(gradient.defined()
                         ? gradient.reshape({-1}).to(at::kCPU, at::kFloat)
                         : at::zeros({parameter.numel()}, at::TensorOptions(at::kFloat)));
    }
    bucket.sum = {at::cat(rows)};
    bucket.work = group.group->allreduce(bucket.sum);
  }

  const Group group;
  std::vector<Bucket> buckets;
  size_t started = 0;
};

} // namespace

extern "C" {

// Joins `size` processes at `host`:`port`, where one of them keeps the store (`serves`). Keys begin with
// `prefix`. `interface` names a network interface; empty: the one of `own`, or where that is empty, too, the one of
// this machine's name.
char *visage_group_new(const char *host, uint16_t port, int rank, int size, int serves,
                       const char *prefix, const char *interface, const char *own,
                       uint64_t milliseconds, void **out) {
  return guarded([&] {
    const auto timeout = std::chrono::milliseconds(milliseconds);
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = serves != 0;
    options.waitWorkers = false;
    options.timeout = timeout;
    auto store = c10::make_intrusive<c10d::PrefixStore>(
        prefix, c10::make_intrusive<c10d::TCPStore>(host, options));
    auto gloo = ProcessGroupGloo::Options::create(timeout);
    gloo->devices.push_back(
        *interface != 0 ? ProcessGroupGloo::createDeviceForInterface(interface)
        : *own != 0     ? ProcessGroupGloo::createDeviceForHostname(own)
                        : ProcessGroupGloo::createDefaultDevice());
    auto group = c10::make_intrusive<ProcessGroupGloo>(store, rank, size, gloo);
    *out = new Group{std::move(group), timeout};
  });
}

void visage_group_free(void *group) { delete static_cast<Group *>(group); }

// Replaces `tensor` by the sum of those of all processes.
char *visage_group_sum(void *group, at::Tensor *tensor) {
  return guarded([&] {
    auto &own = *static_cast<Group *>(group);
    std::vector<at::Tensor> tensors{*tensor};
    wait(own, own.group->allreduce(tensors));
  });
}

// The sum of the tensors of all processes, through which gradients flow back to each.
char *visage_group_sum_with_gradient(void *group, at::Tensor *tensor, at::Tensor **out) {
  return guarded([&] {
    *out = new at::Tensor(Sum::apply(*tensor, *static_cast<Group *>(group)));
  });
}

// Sums the gradients of `count` parameters, `most` values or one parameter at a time, from when they are there until
// visage_group_gradients_finish; a backward pass may come in between.
char *visage_group_gradients(void *group, const at::Tensor *const *parameters, size_t count, int64_t most,
                             void **out) {
  return guarded([&] {
    std::vector<at::Tensor> all;
    for (size_t at = 0; at < count; ++at) {
      all.push_back(*parameters[at]);
    }
    *out = new GradientSum(*static_cast<Group *>(group), all, most);
  });
}

char *visage_group_gradients_finish(void *sum) {
  return guarded([&] { static_cast<GradientSum *>(sum)->finish(); });
}

void visage_group_gradients_free(void *sum) { delete static_cast<GradientSum *>(sum); }

// Fills `all`, `size` times as large as `tensor`, with those of all processes in the order of ranks.
char *visage_group_gather(void *group, at::Tensor *tensor, at::Tensor *all) {
  return guarded([&] {
    auto &own = *static_cast<Group *>(group);
    wait(own, own.group->_allgather_base(*all, *tensor));
  });
}

// Replaces `tensor` by that of rank 0.
char *visage_group_broadcast(void *group, at::Tensor *tensor) {
  return guarded([&] {
    auto &own = *static_cast<Group *>(group);
    std::vector<at::Tensor> tensors{*tensor};
    wait(own, own.group->broadcast(tensors));
  });
}

} // extern "C"
