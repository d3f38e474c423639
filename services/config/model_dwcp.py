"""The keys of DWCP, the protocol between hosts; a part of services.config.model."""

from typing import Annotated

from pydantic import Field

from services.config.kinds import (
    CompressionAlgorithm,
    CompressionLevel,
    CongestionAlgorithm,
    ConsensusAlgorithm,
    CpuNumber,
    Distinct,
    Duration,
    Host,
    Port,
    PredictionModel,
    Section,
    Switch,
    Whole,
)


class Transport(Section):
    """The processes and sockets that move bytes between hosts."""

    min_streams: Whole = Field(
        default=16, ge=1, le=1024, description="Fewest TCP streams of a transfer."
    )
    max_streams: Whole = Field(
        default=256, ge=1, le=1024, description="Most TCP streams of a transfer."
    )
    initial_streams: Whole = Field(
        default=32, ge=1, le=1024, description="TCP streams with which a transfer begins."
    )
    congestion_algorithm: CongestionAlgorithm = Field(
        default=CongestionAlgorithm.BBR, description="TCP congestion control, set per socket."
    )
    enable_rdma: Switch = Field(
        default=False, alias="enableRDMA", description="Use RDMA; needs an RDMA device."
    )
    host: Host = Field(default="127.0.0.1", description="Address to listen on for other hosts.")
    port: Port = Field(default=7800, description="Port to listen on for other hosts.")
    processes: Whole = Field(
        default=0,
        ge=0,
        le=64,
        description="Transport processes; 0 for a number that suits the CPUs.",
    )
    cpus: Annotated[tuple[CpuNumber, ...], Distinct] = Field(
        default=(),
        max_length=64,
        description="CPUs to pin the processes to, one each; empty to choose.",
    )


class Compression(Section):
    """What happens to bytes before they are sent."""

    enabled: Switch = Field(default=True, description="Compress what is sent.")
    algorithm: CompressionAlgorithm = Field(
        default=CompressionAlgorithm.ZSTD, description="Method of compression."
    )
    level: CompressionLevel = Field(
        default=CompressionLevel.BALANCED, description="Time to spend on compression."
    )
    enable_delta_encoding: Switch = Field(
        default=True, description="Send differences to a version that the peer has."
    )
    enable_dictionary: Switch = Field(
        default=True, description="Compress small pieces with a trained dictionary."
    )


class Prediction(Section):
    """The bandwidth prediction."""

    enabled: Switch = Field(default=True, description="Predict bandwidth.")
    model_type: PredictionModel = Field(
        default=PredictionModel.LSTM, description="Model of the prediction."
    )
    prediction_horizon: Duration = Field(
        default=300.0, ge=1, le=86400, description="How far ahead bandwidth is predicted."
    )


class Consensus(Section):
    """The agreement between hosts."""

    enabled: Switch = Field(default=True, description="Take part in the agreement between hosts.")
    algorithm: ConsensusAlgorithm = Field(
        default=ConsensusAlgorithm.RAFT, description="Method of agreement."
    )
    quorum_size: Whole = Field(default=3, ge=1, le=1000, description="Members that must agree.")
    cluster_size: Whole = Field(default=5, ge=1, le=1000, description="Members of the cluster.")


class Dwcp(Section):
    """The protocol between hosts."""

    enabled: Switch = Field(default=True, description="Run the protocol between hosts.")
    transport: Transport = Transport()
    compression: Compression = Compression()
    prediction: Prediction = Prediction()
    consensus: Consensus = Consensus()
